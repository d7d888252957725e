"""What runs on a GPU, beside its limits and its peers."""
