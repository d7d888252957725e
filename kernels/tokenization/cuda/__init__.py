"""Tokenization on a CUDA device: the ids of a text that lies there, identical to the CPU's.

Four steps, none of which waits for the host: find where pieces begin, look each piece up, merge
those that are no token, close up the gaps. Tokens of a piece are written where its bytes lie, so
every step is parallel over the whole text, and one scan puts the ids in order.
"""
