"""The tokenizer: text to token ids and back."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from numbatch.errors import InputError
from numbatch.kernels.ragged import Ragged, on_device
from numbatch.models.tokenizers.added_tokens import AddedToken
from numbatch.models.tokenizers.chat_template import render_chat
from numbatch.models.tokenizers.decode import Decoding, StreamDecoder
from numbatch.models.tokenizers.encoding import Allowed, Encoding
from numbatch.models.tokenizers.repair_text import Errors, valid_text
from numbatch.models.tokenizers.spans import byte_spans, first_tokens
from numbatch.models.tokenizers.text_groups import check_out, placed
from numbatch.models.tokenizers.text_pipeline import TextPipeline
from numbatch.models.tokenizers.vocabulary import Vocabulary

__all__ = ["StreamDecoder", "Tokenizer"]


class Tokenizer:
    """Turns text into token ids and back; made by one of the ``from_`` methods.

    Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM) and SentencePiece-style BPE with byte fallback
    (Llama 2, Gemma). The ids equal those of tiktoken and of Hugging Face's tokenizers.

    Special tokens are parsed only where asked for: by default the text ``<|endoftext|>`` is
    eleven or so ordinary characters. Tokens that a model adds without calling them special are
    always parsed, as in Hugging Face's tokenizers.

    Attributes
    ----------
    name : str
        For messages and reports.
    vocabulary_size : int
        Ids run from 0 to this, exclusive. Where no token has an id, it decodes to nothing.
    bos_id : int or None
        The token that begins a text.
    eos_id : int or None
        The token that the model's files call EOS.
    eos_ids : frozenset of int
        All tokens that end a text or a turn, ``eos_id`` among them.
    adds_bos : bool
        Whether the model's files ask for BOS before a text.
    special_ids : dict of str to int
        The special tokens. Do not change it.
    chat_template : str or None
        Jinja2.

    Notes
    -----
    A vocabulary may lack single bytes (SmolLM2's lacks some control characters). Like Hugging
    Face's tokenizers, ``encode`` leaves them out.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        pipeline: TextPipeline,
        added: Sequence[AddedToken],
        *,
        name: str,
        bos_id: int | None = None,
        eos_id: int | None = None,
        eos_ids: Iterable[int] = (),
        adds_bos: bool = False,
        leading_spaces: int = 0,
        chat_template: str | None = None,
    ) -> None:
        self.name = name
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.eos_ids = frozenset(eos_ids) | ({eos_id} if eos_id is not None else set())
        self.adds_bos = adds_bos and bos_id is not None
        self.special_ids = {token.content: token.id for token in added if token.special}
        self.chat_template = chat_template
        self._encoding = Encoding(vocabulary.tables, pipeline, added, name, bos_id)
        self._decoding = Decoding(vocabulary.outputs, [*self.special_ids.values()], leading_spaces)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        encoding: str | None = None,
        pattern: str | None = None,
        special_tokens: Mapping[str, int] | None = None,
    ) -> Tokenizer:
        """Read a tokenizer from a file.

        Parameters
        ----------
        path : path
            A ``tokenizer.json``, a ``.gguf`` model, a ``.tiktoken`` file, or a folder that holds
            ``tokenizer.json`` (and ``tokenizer_config.json``, ``chat_template.jinja``,
            ``generation_config.json``).
        encoding : str, optional
            For ``.tiktoken``: the name of a known encoding, such as ``cl100k_base``; by default
            the file's name without its suffix.
        pattern, special_tokens : str and mapping, optional
            For ``.tiktoken`` of an unknown encoding: how text is split, and the special tokens.

        Raises
        ------
        ModelError
            If the file is missing, damaged, or of a kind that is not supported.
        """
        from numbatch.models.tokenizers.files import tokenizer_from_path

        return tokenizer_from_path(
            Path(path), encoding=encoding, pattern=pattern, special_tokens=special_tokens
        )

    @classmethod
    def from_tiktoken(cls, encoding: Any) -> Tokenizer:
        """Take over a tiktoken encoding, given by its name or as a ``tiktoken.Encoding``.

        Raises
        ------
        ModelError
            If tiktoken is not installed or does not know the name.
        """
        from numbatch.models.tokenizers.from_tiktoken import tokenizer_from_encoding

        return tokenizer_from_encoding(encoding)

    @classmethod
    def from_huggingface(cls, tokenizer: Any) -> Tokenizer:
        """Take over a ``tokenizers.Tokenizer`` or a fast tokenizer of transformers.

        Raises
        ------
        ModelError
            If it is neither, or has a part that is not supported.
        """
        from numbatch.models.tokenizers.from_json import tokenizer_from_huggingface

        return tokenizer_from_huggingface(tokenizer)

    @property
    def vocabulary_size(self) -> int:
        """Ids run from 0 to this, exclusive."""
        return len(self._decoding.outputs)

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, {self.vocabulary_size} ids)"

    def encode(
        self,
        text: str | bytes,
        *,
        add_bos: bool = False,
        allowed_special: Allowed = (),
        disallowed_special: Allowed = (),
        errors: Errors = "replace",
    ) -> np.ndarray:
        """Return the token ids of one text.

        Parameters
        ----------
        text : str or bytes
            Bytes are UTF-8.
        add_bos : bool
            Put BOS first, unless the text begins with it already.
        allowed_special : ``"all"`` or a collection of str
            The special tokens that are parsed; by default none.
        disallowed_special : ``"all"`` or a collection of str
            The special tokens that no text may hold, those in ``allowed_special`` apart; by
            default none. (In tiktoken's ``encode`` the default is ``"all"``.)
        errors : ``"replace"`` or ``"strict"``
            What becomes of lone surrogates and invalid UTF-8: U+FFFD, or an InputError.

        Returns
        -------
        uint32 array, shape (tokens,)

        Raises
        ------
        InputError
            If the text is neither str nor bytes, is not valid and ``errors`` is ``strict``, a
            name in ``allowed_special`` is no special token, or there is no BOS to add.
        SpecialTokenError
            If the text holds a token of ``disallowed_special``; an InputError too.
        """
        if not (add_bos or allowed_special or disallowed_special) and errors == "replace":
            ids = self._encoding.encode_string(text)
            if ids is not None:
                return ids
        if not isinstance(text, str | bytes):
            raise InputError(f"the text is a {type(text).__name__}, should be str or bytes")
        return self.encode_batch(
            [text],
            add_bos=add_bos,
            allowed_special=allowed_special,
            disallowed_special=disallowed_special,
            errors=errors,
        ).values

    def encode_batch(
        self,
        texts: Any,
        *,
        add_bos: bool = False,
        allowed_special: Allowed = (),
        disallowed_special: Allowed = (),
        errors: Errors = "replace",
        threads: int | None = None,
        out: np.ndarray | None = None,
    ) -> Ragged:
        """Return the token ids of many texts, a row each; see :meth:`encode`.

        Parameters
        ----------
        texts : iterable of str or bytes, Ragged of uint8, or pyarrow string array
            A Ragged and an array of pyarrow hold UTF-8 and are read where they lie. The ids of a
            Ragged on a GPU are found there and stay there; see Notes.
        threads : int, optional
            How many threads at most; by default as many as there are cores, for 256 KiB each.
        out : uint32 array, optional
            Receives the ids; the result is a view of it.

        Returns
        -------
        Ragged of uint32

        Raises
        ------
        InputError
            As :meth:`encode`; it names the text by its index. If ``out`` is no contiguous array
            of uint32 or too small.

        Notes
        -----
        Of texts on a GPU, these go by way of the host, and their ids back: batches that hold an
        added or special token that is looked for, invalid UTF-8, or (Qwen) characters that NFC may
        change; single pieces of more than 2,048 bytes that no merge divides; and all texts of
        tokenizers that are not byte-level.
        """
        check_out(out)
        if out is not None and isinstance(texts, Ragged) and on_device(texts.values):
            raise InputError("out is on the host, but the texts lie on a GPU, as will the ids")
        ids = self._encoding.encode_batch(
            texts, add_bos, allowed_special, disallowed_special, errors, threads
        )
        return ids if out is None else placed(ids, out)

    def count(self, texts: Any, **options: Any) -> np.ndarray:
        """Return the number of tokens of each text, int64; options as in :meth:`encode_batch`."""
        return self.encode_batch(texts, **options).lengths

    def truncate(self, texts: Any, n: int, **options: Any) -> Ragged:
        """Return the first ids of each text, at most ``n``, fewer where a character would be cut.

        Parameters
        ----------
        texts, **options
            As in :meth:`encode_batch`.
        n : int
            How many ids a text may have at most.

        Raises
        ------
        InputError
            If ``n`` is negative, or as :meth:`encode_batch`.
        """
        if n < 0:
            raise InputError(f"n is {n}, should not be negative")
        if isinstance(texts, Ragged):
            texts = texts.to_host()
        return first_tokens(self.encode_batch(texts, **options), n, self._decoding.outputs)

    def offsets(self, text: str | bytes) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids of a text and the bytes that each stands for.

        A token may end inside a character; so the places are bytes of the text's UTF-8.

        Returns
        -------
        ids : uint32 array, shape (tokens,)
        spans : int64 array, shape (tokens, 2)
            Token ``i`` is bytes ``spans[i, 0]`` to ``spans[i, 1] - 1``.

        Raises
        ------
        InputError
            If the text is not valid, or the tokenizer changes it (a normalizer, a vocabulary
            that lacks some bytes), so that tokens have no place in it.
        """
        data = valid_text(text, "strict", "the text").encode()
        ids = self.encode(text)
        if self.decode_bytes(ids) != data or self._decoding.leading_spaces:
            raise InputError(
                f"tokenizer {self.name!r} changes this text, so its tokens have no places in it"
            )
        return ids, byte_spans(ids, self._decoding.outputs)

    def clear_cache(self) -> None:
        """Forget the pieces that were encoded, and give the memory back."""
        self._encoding.clear_cache()

    def set_cache_size(self, pieces: int) -> None:
        """Set how many pieces of text each thread remembers; what is remembered is forgotten.

        A piece takes 32 bytes, and up to as much again where it is long or of many tokens. The
        vocabulary counts among them; by default there is room for twice as many more.

        Raises
        ------
        InputError
            If ``pieces`` is less than the vocabulary has short tokens.
        """
        size = self.vocabulary_size
        if pieces < size:
            raise InputError(
                f"pieces is {pieces}, should be at least {size}, as many as there are ids"
            )
        self._encoding.set_cache_size(pieces)

    def decode(self, ids: Any, *, skip_special: bool = False, continues: bool = False) -> str:
        """Return the text of a sequence of token ids.

        Parameters
        ----------
        ids : sequence of int
        skip_special : bool
            Leave special tokens out.
        continues : bool
            The ids go on from others, so no space is taken off the start. Only Llama 2 and its
            like put one there when they encode.

        Returns
        -------
        str
            Bytes that are not valid UTF-8 become U+FFFD, as ``bytes.decode`` does it.

        Raises
        ------
        InputError
            If an id is out of range; it names the id and its position.
        """
        data: Any = self._decoding.join(ids, skip_special, continues)
        return codecs.utf_8_decode(data, "replace", True)[0]

    def decode_bytes(
        self, ids: Any, *, skip_special: bool = False, continues: bool = False
    ) -> bytes:
        """Return the bytes of a sequence of token ids; see :meth:`decode`."""
        return self._decoding.join(ids, skip_special, continues).tobytes()

    def decode_batch(
        self, rows: Iterable[Any], *, skip_special: bool = False, continues: bool = False
    ) -> list[str]:
        """Return the text of each row of a Ragged or of a list; see :meth:`decode`."""
        rows = rows.to_host() if isinstance(rows, Ragged) else rows
        if isinstance(rows, Ragged) and not (skip_special or continues):
            return self._decoding.texts(rows)
        return [self.decode(row, skip_special=skip_special, continues=continues) for row in rows]

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of one token, which may be part of a character."""
        return self._decoding.join([token_id], skip_special=False, continues=True).tobytes()

    def stream_decoder(
        self, *, skip_special: bool = False, continues: bool = False
    ) -> StreamDecoder:
        """Return a decoder that takes ids as they come; parameters as in :meth:`decode`."""
        return StreamDecoder(self._decoding, skip_special, continues)

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        **extra: Any,
    ) -> str:
        """Return the prompt that the model's chat template makes of messages.

        Parameters
        ----------
        messages : sequence of mappings
            Each with ``role`` and ``content``.
        add_generation_prompt : bool
            Whether the prompt ends where the assistant's answer begins.
        **extra
            Further variables of the template.

        Raises
        ------
        InputError
            If there is no template, the messages are malformed, or the template refuses them.
        """
        if self.chat_template is None:
            raise InputError(f"tokenizer {self.name!r} has no chat template")
        tokens = {
            "bos_token": "" if self.bos_id is None else self._text_of(self.bos_id),
            "eos_token": "" if self.eos_id is None else self._text_of(self.eos_id),
        }
        return render_chat(
            self.chat_template,
            messages,
            add_generation_prompt=add_generation_prompt,
            **{**tokens, **extra},
        )

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        **extra: Any,
    ) -> np.ndarray:
        """Return the token ids of a chat, uint32: special tokens parsed, BOS at most once.

        Parameters and errors are those of :meth:`apply_chat_template`.
        """
        prompt = self.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, **extra
        )
        return self.encode(prompt, add_bos=self.adds_bos, allowed_special="all")

    def _text_of(self, token_id: int) -> str:
        return self.token_bytes(token_id).decode("utf-8", "replace")
