"""A loaded checkpoint that answers questions: prompts in, decoded texts out. Knows nothing of lmms-eval or benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from models.backbone.images import encode_images, load_image_processor
from models.backbone.pictures import Unreadable
from models.backbone.template import ClipGrid, Grid, tokens_of
from models.backbone.tokens import ADDED, SpecialTokens, add_tokens
from models.config import DecodeSpec, Images
from models.evaluation.cache import BoundedCache
from models.evaluation.clips import ClipReader, identity, is_clip
from models.evaluation.known import content_of
from models.evaluation.likelihood import AnswerLetters, LetterTokens
from models.evaluation.prefills import Prefills, bytes_of_token, resident_bytes, rooms
from models.evaluation.vision import encode, merged_grid, rgb, weights_digest
from models.latent.decoding import Decoded, Joining, stream
from models.latent.prompt import Prompt
from models.latent.refill import Name
from models.latent.script import Script, letter_ids, listed_letters
from models.loading import load, method_of
from models.methods.base import Pieces

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
Message = dict[str, Any]
_AS_TRAINED = ClipReader()
MEDIA = ("image", "video")
NO_TOKEN = -1
"""Placeholder for a token that a model does not have; no id equals it."""


@dataclass(frozen=True, eq=False)
class Question:
    """One prompt, ready to be decoded any number of times."""

    input_ids: Tensor
    """[L] int64, image tokens expanded."""
    images: tuple[str, ...]
    """Content hashes of pictures and clips, in prompt order."""
    grids: Tensor | tuple[Grid, ...]
    """[I, 2] merged height and width; of a question with a clip the grids of all."""
    reload: Callable[[], list[Image.Image | str]]
    """Returns the pictures and the clips' paths again, in case their features have been evicted."""
    reader: ClipReader = _AS_TRAINED
    """How its clips are sampled and resized."""
    rejected: str | None = None
    """Why it cannot be asked: one of its clips cannot be read. It then has no ids, and `images` names the clip."""

    @property
    def has_clips(self) -> bool:
        return any(map(is_clip, self.images))

    @classmethod
    def unasked(cls, error: Unreadable) -> Question:
        why = f"{error.reason} {str(error).replace(str(error.path), error.path.name)}"
        return cls(torch.zeros(0, dtype=torch.long), (f"unread {error.path.name}",), (), list, rejected=why)


@dataclass(frozen=True, eq=False)
class Asked:
    """Questions to answer together, each under a name that the caller chooses."""

    names: Sequence[Name]
    questions: Sequence[Question]
    boxes: Sequence[tuple[Tensor, Tensor] | None] | None = None
    """Of each question ([b, 4] float64, [b] image indices), for oracle latents."""
    seeds: Sequence[int] | None = None
    """Seed of each question's noise."""
    groups: Sequence[int] | None = None
    """Numbers of consecutive questions that exchange latents, with `latents: shuffled`; None: all do."""
    parts: Sequence[int] | None = None
    """Numbers of consecutive questions whose prompts are read at once; None: all are."""
    shuffle_seed: int = 0
    """Seed for the choice of whose latents each question gets."""


@dataclass(frozen=True)
class Answer:
    """One decoded response. new_tokens leaves latent steps out. None: of a system of others, which does not say it."""

    response: str
    latent_started: bool | None
    latent_steps: int
    truncated: bool | None
    new_tokens: int | None
    letters: AnswerLetters | None = None
    """Likelihood of each option letter at the answer position; None if unknown."""
    rejected: str | None = None
    """Why the question was not asked: one of its clips cannot be read. The response is then empty."""
    zoom: dict[str, Any] | None = None
    """Where it was zoomed to, or why not (`zoom.Record`); None if zooming was not requested."""

    @classmethod
    def never_asked(cls, why: str) -> Answer:
        return cls("", False, 0, False, 0, rejected=why)


class Engine:
    """Model, tokenizer, image processors and the feature cache of one checkpoint folder.

    checkpoint: any Qwen2.5-VL folder; heads and latent tokens are optional (without them decoding is plain).
    memory_bytes: what the process may take; it decides how much is kept of pictures and prompts. Without it, the two
    numbers do.
    features: by vision tower, kept by the caller from one checkpoint to the next: the tower is frozen in training.
    """

    def __init__(
        self,
        checkpoint: Path | str,
        *,
        device: str = "cpu",
        threads: int = 1,
        precision: str = "bf16",
        attention: str = "sdpa",
        memory_bytes: float | None = None,
        feature_cache_bytes: int = 4 << 30,
        prefill_cache_bytes: int = 3 << 28,
        features: dict[str, BoundedCache] | None = None,
    ) -> None:
        from transformers import AutoProcessor

        torch.set_num_threads(threads)
        self.threads = threads
        self.checkpoint = Path(checkpoint)
        self.device = device
        self.precision = precision
        self.method = method_of(self.checkpoint)
        """The method that trained the checkpoint last; None for a base model."""
        self.model = load(
            self.checkpoint,
            heads=self.method.decoded_with() if self.method else (),
            latent_steps=self.method.latent_steps if self.method else 8,
            dtype=PRECISIONS[precision],
            attn_implementation=attention,
        )
        self.model.to(device).eval()
        processor = AutoProcessor.from_pretrained(self.checkpoint)
        self.tokenizer = processor.tokenizer
        self.chat_template = processor.chat_template or self.tokenizer.chat_template
        self.plain = any(token not in self.tokenizer.get_vocab() for token in ADDED)
        """A model that does not know the latent tokens: to it their ids are spare rows of the embedding, without a meaning."""
        if self.plain:
            add_tokens(self.tokenizer)
        self._unnamed = set(self.tokenizer.convert_tokens_to_ids(list(ADDED))) if self.plain else set()
        """Ids that its own tokenizer has no text for."""
        self.tokens = SpecialTokens.of(self.tokenizer)
        self.letters = LetterTokens(self.tokenizer)
        self.eos = {"all": _end_tokens(self.model, self.tokenizer), "tokenizer": {self.tokenizer.eos_token_id}}
        if memory_bytes is not None:
            feature_cache_bytes, prefill_cache_bytes = rooms(memory_bytes, resident_bytes())
        self.features = BoundedCache(feature_cache_bytes)
        if features is not None:
            tower = weights_digest(self.model.model.visual)
            if tower not in features:
                features.clear()
            self.features = features.setdefault(tower, self.features)
        self.prefills = Prefills(prefill_cache_bytes)
        self.own: dict[tuple[Question, DecodeSpec], Decoded] = {}
        """Answers with their own latents, which `shuffled` feeds to other questions."""
        self.image_processor = lru_cache(maxsize=4)(lambda images: load_image_processor(self.checkpoint, images))
        """The checkpoint's for pictures, with the limits of an `Images`."""
        self._piece_processor = lru_cache(maxsize=4)(lambda pieces, images: pieces.processor(self.checkpoint, images))

    def cache_tokens(self, share: float) -> float:
        """How many tokens' keys and values take this share of the GPU's memory that the model leaves. The same in every process, so
        that what else is in memory changes no batch. ValueError on a CPU."""
        device = torch.device(self.device)
        if device.type != "cuda":
            raise ValueError("cache_share is a share of a GPU's memory, but this model is on a CPU; leave it out")
        taken = sum(parameter.nbytes for parameter in self.model.parameters())
        return share * (torch.cuda.get_device_properties(device).total_memory - taken) / bytes_of_token(self.model)

    @contextmanager
    def pictures(self) -> Iterator[Callable[..., Iterable[Any]]]:
        """`map`, in the engine's threads if it has several: decoding and hashing of pictures run beside each other."""
        if self.threads == 1:
            yield map
            return
        with ThreadPoolExecutor(self.threads) as pool:
            yield pool.map

    def prepare(
        self,
        conversations: Sequence[list[Message]],
        images: Images,
        reload: Sequence[Callable],
        encoded: bool = True,
        reader: ClipReader = _AS_TRAINED,
        each: Callable[..., Iterable[Any]] = map,
    ) -> list[Question]:
        """Tokenise conversations and encode their new pictures, while the feature cache has room for them.

        A conversation is a list of {"role", "content"}; content is a list of {"type": "text", "text"},
        {"type": "image", "url": picture} and {"type": "video", "url": path} (lmms-eval's form). reload[i] gives the pictures
        and paths of conversation i again. The ids equal those of the checkpoint's own processor. encoded: False leaves every
        picture to the batch that needs it; clips always wait for theirs. A question with an unreadable clip is `rejected`. each: in place of `map`, for hashing.
        """
        processor = self.image_processor(images)

        def seen(conversation: list[Message]) -> list[_Shown] | Unreadable:
            try:
                return [_Shown.of(part, processor, reader) for part in _media(conversation)]
            except Unreadable as error:
                return error

        found = dict(enumerate(each(seen, conversations)))
        questions = {at: Question.unasked(own) for at, own in found.items() if isinstance(own, Unreadable)}
        shown = {at: own for at, own in found.items() if at not in questions}
        if shown:
            texts = self.tokenizer.apply_chat_template(
                [_without_pictures(conversations[at]) for at in shown],
                chat_template=self.chat_template,
                tokenize=False,
                add_generation_prompt=True,
            )
            rows = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
            if encoded:
                self._remember(processor, images, [one for own in shown.values() for one in own])
            for (at, own), ids in zip(shown.items(), rows, strict=True):
                grids = [one.grid for one in own]
                questions[at] = Question(
                    input_ids=torch.tensor(self._expanded(ids, grids)),
                    images=tuple(one.key for one in own),
                    grids=_together(grids),
                    reload=reload[at],
                    reader=reader,
                )
        return [questions[at] for at in range(len(conversations))]

    def forget_answers(self, same_pictures: bool = False) -> None:
        """Drops what is cached for the previous questions, except prefills of the same pictures if same_pictures."""
        self.prefills.forget_batches() if same_pictures else self.prefills.clear()
        self.own.clear()

    def answer(self, questions: Sequence[Question], spec: DecodeSpec, images: Images, **options: Any) -> list[Answer]:
        """Decode one batch; answers in order. options: the other fields of `Asked`."""
        batches = iter([Asked(range(len(questions)), questions, **options)] if questions else [])
        found: dict[Name, Answer] = {}
        for ended in self.stream(lambda running: next(batches, None), spec, images):
            found |= ended
        return [found[at] for at in range(len(questions))]

    def stream(
        self, source: Callable[[list[Name]], Asked | None], spec: DecodeSpec, images: Images, refilled: bool = False
    ) -> Iterator[dict[Name, Answer]]:
        """Decode questions that keep coming; answers by name, as they end.

        source: given the names of those that are being answered, returns questions to be answered beside them, or None. refilled: see
        `decoding.stream`.

        ValueError if the decode asks for what this checkpoint or these questions lack.
        """
        spec = self.stated(spec)
        questions: dict[Name, Question] = {}

        def joining(running: list[Name]) -> Joining | None:
            if (asked := source(running)) is None:
                return None
            questions.update(zip(asked.names, asked.questions, strict=True))
            prompts = self._prompts(asked, spec, images)
            return Joining(
                asked.names,
                prompts,
                prefill=self.prefills.of(
                    self.model, asked.questions, prompts, spec.start == "forced", self.tokens, images, asked.parts
                ),
                groups=asked.groups,
                own=self._own(asked.questions, spec) if spec.latents == "shuffled" else None,
                generator=torch.Generator().manual_seed(asked.shuffle_seed),
            )

        for ended in stream(
            self.model,
            joining,
            spec,
            tokens=replace(self.tokens, lvr_start=NO_TOKEN) if self.plain and spec.start == "emitted" else self.tokens,
            eos=self.eos[spec.ends],
            keep_latents=spec.latents == "own",
            end_vector=self.method.end_vector(self.model) if self.method else None,
            keep_logits=self.letters,
            script=None if spec.answer == "free" else Script.of(self.tokenizer, spec.prefix),
            refilled=refilled,
        ):
            if spec.latents == "own":
                self.own |= {(questions[name], spec): decoded for name, decoded in ended.items()}
            yield {name: self.answer_of(decoded, spec) for name, decoded in ended.items()}

    def _prompts(self, asked: Asked, spec: DecodeSpec, images: Images) -> list[Prompt]:
        held = self.features_of(asked.questions, images)
        prompts = []
        for index, question in enumerate(asked.questions):
            features = [held[key] for key in question.images]
            prompts.append(
                Prompt(
                    input_ids=question.input_ids,
                    image_grids=question.grids,
                    image_embeds=torch.cat(features).to(self.device) if features else None,
                    seed=asked.seeds[index] if asked.seeds else None,
                    letters=self._option_ids(question, spec.prefix) if spec.answer == "letter" else (),
                )
            )
        if spec.latents == "oracle" and spec.latent_steps:
            return self.with_true_boxes(prompts, asked.questions, asked.boxes or [None] * len(prompts), spec, images)
        return prompts

    def _option_ids(self, question: Question, prefix: str) -> tuple[int, ...]:
        """Ids of the letters that a question lists, behind the prefix. ValueError where it lists none."""
        text = self.tokenizer.decode(question.input_ids)
        if not (letters := listed_letters(text)):
            raise ValueError(f"answer: letter chooses among listed options, and there are none in {text[-200:]!r}; use answer: prefix or free")
        return letter_ids(self.tokenizer, letters, prefix)

    def stated(self, spec: DecodeSpec) -> DecodeSpec:
        """The decode with the number that `repetition_penalty: checkpoint` stands for."""
        if spec.repetition_penalty != "checkpoint":
            return spec
        return spec.model_copy(update={"repetition_penalty": self.model.generation_config.repetition_penalty or 1.0})

    def with_true_boxes(
        self,
        prompts: Sequence[Prompt],
        questions: Sequence[Question],
        boxes: Sequence[tuple[Tensor, Tensor] | None],
        spec: DecodeSpec,
        images: Images,
    ) -> list[Prompt]:
        """The questions' prompts with what their true boxes put into the slots in training. boxes: per question ([b, 4] float64,
        [b] image indices). ValueError for a checkpoint that cannot look at a box."""
        if self.method is None:
            raise ValueError(f"latents: oracle needs a trained checkpoint, and {self.checkpoint.name} is a base model")
        looking = [replace(p, boxes=own[0], box_image=own[1]) if own else p for p, own in zip(prompts, boxes, strict=True)]

        def encoded(pieces: Pieces) -> list[list[Tensor]]:
            processor, cut = self._piece_processor(pieces, images), []
            for question, prompt in zip(questions, looking, strict=True):
                pictures = [rgb(picture) for picture in question.reload()]
                places = zip(prompt.boxes.tolist(), prompt.box_image.tolist(), strict=True)
                cut += [pieces.cut(pictures[image], box, processor) for box, image in places]
            if None in cut:
                raise ValueError("latents: oracle needs a piece of the picture for every true box, and one has none")
            found = iter(encode(self.model, processor, cut))
            return [[next(found) for _ in range(len(prompt.boxes))] for prompt in looking]

        with torch.inference_mode():
            given = self.method.oracle(self.model, looking, spec.latent_steps, encoded)
        return [replace(prompt, oracle=own) for prompt, own in zip(looking, given, strict=True)]

    def _own(self, questions: Sequence[Question], spec: DecodeSpec) -> list[Decoded] | None:
        """The questions' answers with their own latents, if all are known."""
        asked = spec.model_copy(update={"latents": "own"})
        found = [self.own.get((question, asked)) for question in questions]
        return None if None in found else found

    def answer_of(self, decoded: Decoded, spec: DecodeSpec) -> Answer:
        """The decoded tokens as text."""
        unnamed = self._unnamed if spec.start == "emitted" else set()
        spoken = [token for token in decoded.token_ids if token not in unnamed]
        pieces = ["" if token in unnamed else self.tokenizer.decode([token]) for token in decoded.token_ids]
        special = [token in self.letters.special for token in decoded.token_ids]
        return Answer(
            response=self.tokenizer.decode(spoken, skip_special_tokens=False),
            latent_started=decoded.latent_started,
            latent_steps=decoded.latent_steps,
            truncated=decoded.truncated,
            new_tokens=len(decoded.token_ids) - decoded.latent_steps,
            letters=None if decoded.kept is None else self.letters.at(decoded.kept, decoded.kept_at, pieces, special),
        )

    def _expanded(self, ids: list[int], grids: list[Grid]) -> list[int]:
        """Each image or video token repeated once per merged token of its picture or clip."""
        sizes = iter(map(tokens_of, grids))
        out: list[int] = []
        for token in ids:
            out.extend([token] * next(sizes) if token in (self.tokens.image, self.tokens.video) else [token])
        return out

    def _remember(self, processor: Any, images: Images, shown: Sequence[_Shown]) -> None:
        """Encode pictures not yet cached as long as nothing would have to be forgotten for them."""
        per_token = self.model.config.get_text_config().hidden_size * PRECISIONS[self.precision].itemsize
        new: dict[str, Image.Image] = {}
        planned = 0
        for one in shown:
            size = tokens_of(one.grid) * per_token
            known = isinstance(one.media, str) or (one.key, images) in self.features or one.key in new
            if known or not self.features.has_room(planned + size):
                continue
            new[one.key], planned = one.media, planned + size
        for key, features in zip(new, encode(self.model, processor, self._decoded(new.values())), strict=True):
            self.features.put((key, images), features)

    def features_of(self, questions: Sequence[Question], images: Images) -> dict[str, Tensor]:
        """The features of every picture and clip of a batch, encoded again where the cache has forgotten or never held them.
        Raises pictures.Unreadable for a clip."""
        held: dict[str, Tensor] = {}
        missing: dict[str, Image.Image] = {}
        for question in questions:
            wanted = {key: _kept_as(key, images, question.reader) for key in question.images if key not in held}
            held |= {key: self.features.get(kept) for key, kept in wanted.items() if kept in self.features}
            absent = {key for key in wanted if key not in held and key not in missing}
            again = zip(question.images, question.reload(), strict=True) if absent else ()
            for key, shown in again:
                if key in absent and isinstance(shown, str):  # one at a time: a clip's patches are large
                    held[key] = self._encoded_clip(question.reader, shown, images)
                    self.features.put(wanted[key], held[key])
                elif key in absent:
                    missing[key] = shown
        encoded = encode(self.model, self.image_processor(images), self._decoded(missing.values()))
        for key, features in zip(missing, encoded, strict=True):
            held[key] = features
            self.features.put((key, images), features)
        return held

    def _decoded(self, pictures: Iterable[Image.Image]) -> list[Image.Image]:
        """RGB pictures, decoded in the engine's threads where needed."""

        def decoded(picture: Image.Image) -> Image.Image:
            (own := rgb(picture)).load()
            return own

        with self.pictures() as each:
            return list(each(decoded, pictures))

    def _encoded_clip(self, reader: ClipReader, path: str, images: Images) -> Tensor:
        patches, grid = reader.patches(self.image_processor(images), path)
        with torch.inference_mode():
            return encode_images(self.model, [patches], grid[None])[0].to("cpu")


@dataclass(frozen=True, eq=False)
class _Shown:
    """A picture or a clip of a conversation."""

    key: str
    """Of its content."""
    media: Image.Image | str
    """A picture, or the path of a clip."""
    grid: Grid

    @classmethod
    def of(cls, part: dict[str, Any], processor: Any, reader: ClipReader) -> _Shown:
        """Raises pictures.Unreadable for a clip."""
        if part["type"] == "video":
            return cls(identity(part["url"]), part["url"], reader.grid(processor, part["url"]))
        picture = part["url"]
        return cls(content_of(picture), picture, merged_grid(processor, picture))


def _media(conversation: list[Message]) -> list[dict[str, Any]]:
    return [part for message in conversation for part in message["content"] if part["type"] in MEDIA]


def _without_pictures(conversation: list[Message]) -> list[Message]:
    return [
        {**m, "content": [{"type": part["type"]} if part["type"] in MEDIA else part for part in m["content"]]}
        for m in conversation
    ]


def _together(grids: list[Grid]) -> Tensor | tuple[Grid, ...]:
    """[I, 2] of pictures; themselves if there is a clip."""
    if any(isinstance(grid, ClipGrid) for grid in grids):
        return tuple(grids)
    return torch.tensor(grids, dtype=torch.long).reshape(-1, 2)


def _kept_as(key: str, images: Images, reader: ClipReader) -> tuple[Any, ...]:
    """Cache key of features."""
    return (key, images, reader) if is_clip(key) else (key, images)


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Every id that ends a response: generation_config's and the tokenizer's."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, (list, tuple)) else [configured]
    return {i for i in (*ids, tokenizer.eos_token_id) if i is not None}
