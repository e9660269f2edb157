"""One answer, token by token: transformers' own `generate`, with its text handed out as it grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunedesk.core.events import LabelShare, Message, Sampling
from tunedesk.core.problems import Problem, ProblemError

Ended = Literal["stop_token", "length", "stopped"]

GREEDY_BELOW = 1e-3
"""Temperatures under this are greedy: dividing by them would overflow."""

_PROBE = "\u00a7probe\u00a7"


@dataclass(frozen=True)
class Answer:
    """A generated text. `token_ids` include the closing token; `seconds` include reading the prompt.

    A classifier's has the shares of its `labels`, the likeliest first, or the `number` that it gives.
    """

    text: str
    token_ids: tuple[int, ...]
    seconds: float
    ended: Ended
    labels: tuple[LabelShare, ...] = ()
    number: float | None = None


def encode_prompt(tokenizer: Any, messages: Sequence[Message], plain: bool) -> list[int]:
    """The tokens that a conversation is for the model, up to where its answer starts.

    With `plain` the contents are joined to one text for models that continue texts. Raises `ProblemError` when the
    chat template refuses the conversation or there is nothing to answer.
    """
    from jinja2 import TemplateError

    if plain:
        ids = tokenizer(plain_text(messages))["input_ids"]
    else:
        turns = [{"role": item.role, "content": item.content} for item in messages]
        try:
            ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
        except TemplateError as error:
            raise ProblemError(_refused(str(error))) from error
    if not ids:
        raise ProblemError(_nothing())
    return [int(token) for token in ids]


def encode_source(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The last text of a user in the tokenizer's own frame: what a model that turns one text into another reads.

    Raises `ProblemError` when there is none.
    """
    text = next((item.content for item in reversed(messages) if item.role == "user"), "")
    if not text.strip():
        raise ProblemError(_nothing())
    return [int(token) for token in tokenizer(text)["input_ids"]]


def _nothing() -> Problem:
    return Problem(code="chat.empty", what="There is nothing to answer.", fix="Type a question or a text.")


def plain_text(messages: Sequence[Message]) -> str:
    """The contents one after the other: an answer goes on right where its text ended, a new text on a new line."""
    text = ""
    for message in messages:
        text += ("\n" if text and message.role != "assistant" else "") + message.content
    return text


def _refused(reason: str) -> Problem:
    return Problem(
        code="chat.template",
        what="The model's chat template does not take this conversation.",
        found=reason[:300],
        fix="Leave the system prompt out, or start a new conversation.",
    )


def stop_tokens(tokenizer: Any, model: Any, plain: bool) -> tuple[int, ...]:
    """Every token that ends an answer: the model's, the tokenizer's and the one that the chat template closes with."""
    stated = model.generation_config.eos_token_id if model.generation_config else None
    found = list(stated) if isinstance(stated, list | tuple) else [stated]
    found += [tokenizer.eos_token_id, None if plain else closing_token(tokenizer)]
    return tuple(dict.fromkeys(int(token) for token in found if token is not None))


def closing_token(tokenizer: Any) -> int | None:
    """The special token that the chat template writes after an assistant's turn, if any."""
    from jinja2 import TemplateError

    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except TemplateError:
        return None
    rest = text.partition(_PROBE)[2]
    ids = tokenizer(rest.lstrip(), add_special_tokens=False)["input_ids"] if rest.strip() else []
    special = {token for token, item in tokenizer.added_tokens_decoder.items() if item.special}
    return int(ids[0]) if ids and ids[0] in special.union(tokenizer.all_special_ids) else None


class TextStream:
    """Turns tokens into pieces of text: never half a character, and together exactly the whole text."""

    def __init__(self, tokenizer: Any, say: Callable[[str], None]) -> None:
        self._tokenizer = tokenizer
        self._say = say
        self._from = 0
        self._told = 0
        self.token_ids: list[int] = []
        self.text = ""

    def add(self, token: int) -> None:
        """Take the next token and say what is readable now."""
        self.token_ids.append(token)
        text = self._decode()
        if not text.endswith("\ufffd"):
            self._tell(text)

    def finish(self) -> None:
        """Say what is left, even an unfinished character."""
        self._tell(self._decode())

    def _decode(self) -> str:
        """What is new: the tokens since the last piece, read together with that piece, whose text is cut off."""
        known = self._read(self.token_ids[self._from : self._told])
        return self._read(self.token_ids[self._from :])[len(known) :]

    def _read(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _tell(self, text: str) -> None:
        if text:  # tokens that say nothing are read with the next, whose space would be lost at the start of a text
            self._from, self._told = self._told, len(self.token_ids)
            self.text += text
            self._say(text)


class _Streamer:
    """What `generate` hands its tokens to; the first hand-over is the prompt, or what an answer begins after."""

    def __init__(self, stream: TextStream) -> None:
        self._stream = stream
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        """Take new tokens, a tensor of one row or one item."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        for token in value.flatten().tolist():
            self._stream.add(token)

    def end(self) -> None:
        """The last token was handed over."""
        self._stream.finish()

    def __deepcopy__(self, memo: Any) -> _Streamer:
        """Itself: peft copies what it hands to a T5 with a prompt, and the text is to come out here."""
        return self


def generate_answer(
    model: Any,
    tokenizer: Any,
    prompt: Sequence[int],
    sampling: Sampling,
    stop: tuple[int, ...],
    context_length: int | None,
    say: Callable[[str], None],
    stop_asked: Callable[[], bool],
) -> Answer:
    """Answer `prompt` and `say` the text in pieces; `stop_asked` is called after every token.

    Raises `ProblemError` when the prompt leaves no room in the context, the memory is full or the weights are broken.
    """
    import torch
    from transformers import StoppingCriteriaList

    from tunedesk.engine.methods import writer

    reads_apart = bool(model.config.is_encoder_decoder)  # an answer then begins at its own first place
    room = (context_length or len(prompt) + sampling.max_new_tokens) - len(prompt)
    if room < (0 if reads_apart else 1):
        raise ProblemError(_too_long(len(prompt), context_length or 0))
    if reads_apart:
        room = (context_length or sampling.max_new_tokens + 1) - 1
    most = min(room, sampling.max_new_tokens)
    first = model.config.decoder_start_token_id if reads_apart else None
    stream = TextStream(tokenizer, say)
    stopped = False

    def asked(ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG001 (transformers' signature)
        nonlocal stopped
        stopped = stopped or stop_asked()
        return torch.full((ids.shape[0],), stopped, dtype=torch.bool, device=ids.device)

    ids = torch.tensor([list(prompt)], device=model.device)
    torch.manual_seed(sampling.seed % 2**63)
    start = time.monotonic()
    try:
        with torch.inference_mode():
            writer(model).generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=_generation_config(sampling, stop, tokenizer, most, first),
                streamer=_Streamer(stream),
                stopping_criteria=StoppingCriteriaList([asked]),
            )
    except RuntimeError as error:
        raise ProblemError(_failure(error)) from error
    last = stream.token_ids[-1] if stream.token_ids else None
    ended: Ended = "stop_token" if last in stop else ("stopped" if stopped else "length")
    return Answer(stream.text, tuple(stream.token_ids), time.monotonic() - start, ended)


def _generation_config(sampling: Sampling, stop: tuple[int, ...], tokenizer: Any, most: int, first: int | None) -> Any:
    """Every knob stated, so that neither the model's generation_config nor the library's defaults fill one in.

    `first` is the token that a decoder with a text of its own begins after.
    """
    from transformers import GenerationConfig

    greedy = sampling.temperature < GREEDY_BELOW
    return GenerationConfig(
        max_new_tokens=most,
        do_sample=not greedy,
        temperature=1.0 if greedy else sampling.temperature,
        top_p=1.0 if greedy else sampling.top_p,
        top_k=0 if greedy else sampling.top_k,
        repetition_penalty=sampling.repetition_penalty,
        eos_token_id=list(stop) or None,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (stop[0] if stop else 0),
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=first,
        num_beams=1,
        use_cache=True,
    )


def _too_long(tokens: int, context_length: int) -> Problem:
    return Problem(
        code="chat.too_long",
        what="The conversation is longer than the model can read.",
        found=f"It has {tokens:,} tokens; the model reads {context_length:,}, its answer included.",
        fix="Start a new conversation, or shorten the text.",
    )


def _failure(error: RuntimeError) -> Problem:
    """The problem behind an error of torch; raises `error` itself when it is none that a person can mend."""
    text = str(error)
    if "memory" in text.lower():
        return Problem(
            code="memory.full",
            what="The memory is full.",
            found=text.splitlines()[0][:200],
            fix="Start a new conversation, ask for shorter answers, or close other programs.",
        )
    if "probability tensor contains" in text:
        return Problem(
            code="chat.not_finite",
            what="The model's output is not a number (NaN): its weights are broken.",
            fix="Training may have diverged. Train again with a lower learning rate.",
        )
    raise error
