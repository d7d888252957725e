"""``numbatch baseline``: what this machine does in each part of the work, as a report."""
