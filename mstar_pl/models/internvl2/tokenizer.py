"""The sentencepiece tokenizer of InternLM2 as a `tokenizer.json`, equal on every text that was tried."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mstar_pl.models.checkpoint_files import blamed_on, read_settings
from mstar_pl.types import InputError

MODEL = "tokenizer.model"
CONFIG = "tokenizer_config.json"
NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
"""Tokens that the processor asks the tokenizer for by name."""
END_OF_TURN = "<|im_end|>"

_NORMAL, _USER_DEFINED = 1, 4  # kinds of pieces in sentencepiece_model.proto
_SAMPLES = (
    "The answer is 4.\n\n# Answer\n\n(B) 3.14 cm",
    "  two  spaces,\ttabs\r\nand     more   ",
    " 12 + 345 = 357; x_1^2 \\frac{1}{2} ≤ √π, 100 % of $1,234.56",
    "图中有多少个红色的圆？一共 23 个。",  # noqa: RUF001 - Chinese punctuation
    "aaaa ----- ====== !!! hahaha 0000000",
    "naïve café, Übergröße, Ελλάδα, Москва, 日本語, 한국어, 🐉👩‍🚀",
    '{"key": ["value", null]}\n    return x  # <b>',
    "\n\n\n",
)


def native_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a published folder.

    `tokenizer_config.json` gives new names to some unused pieces (`<|im_start|>` and its like) and appends
    others (`<img>`); the last piece that stays unused becomes `<video>`, which the processor needs and
    InternVL2 has not. It adds no `<s>` in front: that is in the chat template, so that nobody adds a second.

    Args:
        folder: The published folder.

    Raises:
        InputError: A file is missing, or does not hold the tokenizer of InternVL2.
    """
    proto, settings = _read_model(folder / MODEL), read_settings(folder / CONFIG)
    with blamed_on(folder / CONFIG):
        tokens = {int(place): token for place, token in settings.get("added_tokens_decoder", {}).items()}
        names = {place: token["content"] for place, token in tokens.items()}
        special = {place for place, token in tokens.items() if token.get("special")}
    pieces = {place: piece.piece for place, piece in enumerate(proto.pieces)}
    unused = [place for place in pieces.keys() - names if re.match(r"\[UNUSED_TOKEN_\d+\]$", pieces[place])]
    wanted = {*NAMED.values(), END_OF_TURN} - set(names.values()) - {NAMED["video_token"]}
    if wanted or not unused:
        lacking = min(wanted, default="unused piece")
        raise InputError(f"{folder / CONFIG}: no {lacking}, so not InternVL2's; download the folder again")
    names[max(unused)] = NAMED["video_token"]
    special.add(max(unused))
    tokenizer = _tokenizer(proto, [names.get(place, piece) for place, piece in pieces.items()])
    names = {place: pieces[place] for place in pieces if proto.pieces[place].type == _USER_DEFINED} | names
    for place, name in sorted(names.items()):
        tokenizer.add_tokens([AddedToken(name, special=place in special, normalized=False)])
        if tokenizer.token_to_id(name) != place:
            raise InputError(f"{folder / CONFIG}: {name} is not token {place} behind {MODEL}; download both")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=settings.get("model_max_length"),
        extra_special_tokens=NAMED,
    )


def _read_model(file: Path) -> Any:
    """Return the content of a sentencepiece model."""
    if not file.is_file():
        raise InputError(f"{file}: does not exist; download it")
    try:
        from google.protobuf.message import DecodeError
        from transformers.convert_slow_tokenizer import SentencePieceExtractor

        proto = SentencePieceExtractor(str(file)).proto
    except ImportError:
        raise InputError("this needs sentencepiece and protobuf: pip install 'mstar_pl[internvl2]'") from None
    except DecodeError as error:
        raise InputError(f"{file}: cannot be read ({error}); download it again") from None
    if not proto.HasField("normalizer_spec"):  # behind the pieces
        raise InputError(f"{file}: is cut off; download it again")
    return proto


def _tokenizer(proto: Any, names: list[str]) -> Tokenizer:
    """Return a tokenizer of the same pieces, merges and treatment of spaces.

    Sentencepiece joins the two neighbours that make the piece with the highest score, the leftmost first.
    """
    ids = {name: place for place, name in enumerate(names)}
    merges = [
        (-piece.score, name[:cut], name[cut:])
        for piece, name in zip(proto.pieces, names, strict=True)
        if piece.type == _NORMAL
        for cut in range(1, len(name))
        if name[:cut] in ids and name[cut:] in ids
    ]
    merges.sort(key=lambda merge: merge[0])
    pairs = [(left, right) for _, left, right in merges]
    tokenizer = Tokenizer(BPE(vocab=ids, merges=pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    spaces: list[normalizers.Normalizer] = [normalizers.Replace(" ", "▁")]
    decoding = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if proto.normalizer_spec.add_dummy_prefix:
        spaces.insert(0, normalizers.Prepend("▁"))
        decoding.append(decoders.Strip(" ", left=1))
    tokenizer.normalizer = normalizers.Sequence(spaces)
    tokenizer.decoder = decoders.Sequence(decoding)
    return tokenizer


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Compare a tokenizer, loaded as others will load it, with sentencepiece on sample texts.

    Raises:
        InputError: They differ.
    """
    from sentencepiece import SentencePieceProcessor

    published = SentencePieceProcessor(str(folder / MODEL))
    for text in _SAMPLES:
        if tokenizer.encode(text, add_special_tokens=False) != published.encode(text):
            raise InputError(
                f"{folder / MODEL}: its rules cannot be kept (as on {text!r}); is it InternVL2's own file?"
            )
