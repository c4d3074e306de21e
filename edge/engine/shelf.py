"""The models in memory: loaded when first asked for, the least recently used put away when a further one comes.

It knows paths, digests and who is using what; it doesn't know turns. It may be called from any thread. Whoever asks for
a model that is being loaded waits for that one; whoever asks for one that there is no room for waits until others
have been given back. A model in use, or used a moment ago, goes on to be given out meanwhile, but not for ever: once it
has been there for `PATIENCE_S`, and somebody has waited as long, it is given to nobody before that one has had its
turn.

Invariants: a model with users is never closed, and is in memory once; what models claim together, those that are being
loaded included, is within the budget, and a load begins when what makes way for it is gone.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from edge.engine.llama import gpu_free_bytes, offloads
from edge.engine.loaded import Loaded, MakeLanes, Place, Stamp
from edge.engine.memory import Budget, Claim, check_host, gpu_room, in_words, layers_that_fit
from gx.core.errors import BenchError, ModelError

PATIENCE_S = 10.0
"""How long models that don't fit together are used in turns: a load takes seconds, and should pay."""
BETWEEN_TURNS_S = 0.3
"""How soon after its last use a model may be wanted again by the same user, so that it is worth keeping."""
_LOOK_S = 0.05
"""How often whoever waits looks whether it is still wanted."""


class _Want:
    """Somebody who waits for a model, since when, and what it claims."""

    def __init__(self, digest: str, place: Place, claim: Claim, stamp: Stamp | None, since_s: float) -> None:
        self.digest, self.place, self.claim, self.stamp, self.since_s = digest, place, claim, stamp, since_s
        self.makes_way: list[Loaded] = []  # what is to be put away before it is loaded


class Shelf:
    """The models by digest. `context_tokens` is the context where a model's own place doesn't say.

    `budget_bytes` is what all may take, None what is free now; `cache_bytes` what a model's caches may come to, and
    `least_cache_bytes` with how much it is content beside others, None with no less; how much it got, its claim says.
    `is_gpu` says that the budget is a GPU's: a model that has no room there alone is loaded with fewer layers on it.
    """

    def __init__(
        self,
        make_lanes: MakeLanes,
        *,
        context_tokens: int | None = None,
        budget_bytes: int | None = None,
        cache_bytes: int = 0,
        least_cache_bytes: int | None = None,
        is_gpu: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_lanes, self._context_tokens, self._now = make_lanes, context_tokens, now
        self._cache_bytes, self._is_gpu = cache_bytes, is_gpu
        least = cache_bytes if least_cache_bytes is None else least_cache_bytes
        self._budget = Budget(budget_bytes, least, is_gpu=is_gpu)
        self._changed = threading.Condition()
        self._places: dict[str, Place] = {}
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._retired: list[Loaded] = []  # with users still, or about to be put away
        self._loading: dict[str, Claim] = {}
        self._wants: list[_Want] = []  # in the order of their coming
        self._broken: dict[Place, tuple[Stamp, ModelError]] = {}  # as it was, and why it couldn't be loaded
        self._is_closed = False

    def __repr__(self) -> str:
        models = f"{len(self._loaded)} loaded, {len(self._loading)} loading, {len(self._wants)} waiting"
        return f"<Shelf {models}, {in_words(self._budget.total(self._claims()))} of {in_words(self._budget.bytes)}>"

    def register(self, digest: str, place: Place) -> None:
        """Say where a model is. Never waits, not even for a load; a new place for a digest counts from its next use."""
        self._places[digest] = place

    def take(self, digest: str, *, gives_up: Callable[[], bool] = lambda: False) -> Loaded:
        """Use a model, until it is given back, loading it where that's needed, and waiting for room until `gives_up`.

        Whoever uses a model may not wait for another one: that one may wait for the first.

        :raises ModelError: if it isn't registered, can't be loaded, or (code "model.memory") would not fit alone.
        :raises BenchError: if the shelf is closed, or (code "cancelled") the caller gives up.
        """
        place = self._place(digest)
        with self._changed:
            if (known := self._use_if_there(digest, place)) is not None:
                return known
        want = _Want(digest, place, self._claim(place), place.stamp(), self._now())
        with self._changed:
            known = self._enter(want, gives_up)
        if known is not None:
            return known
        let_go = self._keep_weights(want)
        try:
            return self._load(want)
        finally:
            let_go()

    def take_nowait(self, digest: str) -> Loaded | None:
        """Use a model that is in memory; `None` if `take` would have to wait or to load. Raises what `take` does."""
        place = self._place(digest)
        with self._changed:
            return self._use_if_there(digest, place)

    def give_back(self, loaded: Loaded) -> None:
        """End one use of a model."""
        with self._changed:
            loaded.users, loaded.used_s = loaded.users - 1, self._now()
            if loaded.users:
                return
            if not loaded.is_retired:
                self._changed.notify_all()
                return
        self._put_away(loaded)

    @contextmanager
    def borrow(self, digest: str, *, gives_up: Callable[[], bool] = lambda: False) -> Iterator[Loaded]:
        """`take` and `give_back`. Raises what `take` does."""
        loaded = self.take(digest, gives_up=gives_up)
        try:
            yield loaded
        finally:
            self.give_back(loaded)

    def digests(self) -> list[str]:
        """What is loaded, least recently used first."""
        with self._changed:
            return list(self._loaded)

    def close(self) -> None:
        """Put everything away; what is in use, when it is given back."""
        with self._changed:
            self._is_closed = True
            unused = [one for digest in list(self._loaded) if not (one := self._retire(digest)).users]
            self._changed.notify_all()
        for loaded in unused:
            self._put_away(loaded)

    def _check_open(self) -> None:
        if self._is_closed:
            raise BenchError("the engine is closed")

    def _place(self, digest: str) -> Place:
        self._check_open()
        if (place := self._places.get(digest)) is None:
            raise ModelError(f"no model with the digest {digest[:12]}… is known to this bench", hint="load it first")
        return place

    def _claim(self, place: Place) -> Claim:
        """What a model will take. :raises ModelError: if that is more than there is, even without all others."""
        claim = place.claim(self._context_tokens, self._cache_bytes)
        with self._changed:
            if self._is_gpu and not self._claims():
                self._budget.grow(gpu_room(gpu_free_bytes()) or 0)
        if not (self._is_gpu or offloads()):  # the weights go elsewhere then
            self._budget.check(place.path, claim)
        return claim

    def _enter(self, want: _Want, gives_up: Callable[[], bool]) -> Loaded | None:
        """Wait until the model is there, or, `None`, there is room for it, which is then the caller's to fill."""
        self._wants.append(want)
        try:
            while (known := self._use_if_there(want.digest, want.place)) is None:
                if gives_up():
                    raise BenchError("nobody waits for the model any more", code="cancelled")
                if (broken := self._broken.get(want.place)) is not None and broken[0] == want.stamp:
                    raise _anew(broken[1])
                if want.digest not in self._loading and (cache := self._grant(want)) is not None:
                    self._loading[want.digest] = want.claim = want.claim._replace(cache=cache)
                    return None
                self._changed.wait(_LOOK_S)
            return known
        finally:
            self._wants.remove(want)

    def _use_if_there(self, digest: str, place: Place) -> Loaded | None:
        """The model, if it is in memory as it should be and needn't leave, with one use more."""
        self._check_open()
        loaded = self._loaded.get(digest)
        if loaded is None or loaded.place != place or loaded in self._leaving():
            return None
        self._loaded.move_to_end(digest)
        loaded.users += 1
        return loaded

    def _leaving(self) -> list[Loaded]:
        """Who is given out no more, because somebody else has waited long enough for the room."""
        late_s = self._now() - PATIENCE_S
        late = [want for want in self._wants if want.since_s <= late_s and self._waits(want)]
        if not late:
            return []
        leaving: list[Loaded] = []
        for loaded in sorted(self._loaded.values(), key=lambda loaded: loaded.since_s):
            is_enough = self._budget.cache_for(late[0].claim, self._claims(without=leaving)) is not None
            if is_enough or loaded.since_s > late_s:
                break
            leaving.append(loaded)
        return leaving

    def _waits(self, want: _Want) -> bool:
        """Whether somebody waits for room, and not for a load."""
        loaded = self._loaded.get(want.digest)
        return want.digest not in self._loading and (loaded is None or loaded.place != want.place)

    def _grant(self, want: _Want) -> int | None:
        """What a model's caches may take, once unused models have made way for it; `None` if there is no room now."""
        late_s = self._now() - PATIENCE_S
        ahead = [other for other in self._wants[: self._wants.index(want)] if other.digest != want.digest]
        if any(other.since_s <= late_s and self._waits(other) for other in ahead):
            return None
        if not all(loaded.users for loaded in self._retired):
            return None  # one is being put away for somebody: how much room there is shows only then
        before = self._loaded.get(want.digest)  # from another place
        if before is not None and before.users:
            self._retire(want.digest)
        going = [] if before is None or before.users else [before]
        unused = [loaded for loaded in self._loaded.values() if loaded not in going and self._may_leave(loaded)]
        for n in range(len(unused) + 1):
            leaving = [*going, *unused[:n]]
            cache = self._budget.cache_for(want.claim, self._claims(without=leaving))
            if cache is not None:
                want.makes_way += [self._retire(loaded.model.digest) for loaded in leaving]
                return cache
        return None

    def _may_leave(self, loaded: Loaded) -> bool:
        """Whether nobody uses a model, and nobody is about to: one turn often follows another."""
        now_s = self._now()
        is_fresh = now_s - loaded.used_s < BETWEEN_TURNS_S and now_s - loaded.since_s < PATIENCE_S
        return not loaded.users and not is_fresh

    def _claims(self, without: Sequence[Loaded] = ()) -> list[Claim]:
        """Of all models in memory, those that are being loaded included."""
        staying = [loaded for loaded in (*self._loaded.values(), *self._retired) if loaded not in without]
        return [*(loaded.claim for loaded in staying), *self._loading.values()]

    def _load(self, want: _Want) -> Loaded:
        """Fill the room that was granted, once those that make way are gone."""
        try:
            for loaded in want.makes_way:
                self._put_away(loaded)
            gpu_layers = self._gpu_layers(want)
            loaded = Loaded(
                want.digest,
                want.place,
                self._make_lanes,
                self._context_tokens,
                claim=want.claim,
                gpu_layers=gpu_layers,
            )
        except BaseException as error:
            with self._changed:
                del self._loading[want.digest]
                if isinstance(error, ModelError) and error.code != "model.memory" and want.stamp is not None:
                    self._broken[want.place] = want.stamp, _anew(error)
                self._changed.notify_all()
            raise
        with self._changed:
            del self._loading[want.digest]
            self._changed.notify_all()
            if self._is_closed:
                loaded.close()
                raise BenchError("the engine is closed")
            loaded.users, loaded.since_s = 1, self._now()
            self._loaded[want.digest] = loaded
            return loaded

    def _keep_weights(self, want: _Want) -> Callable[[], None]:
        """Where what makes way is of the same file, as with other adapters, its weights needn't be read again. Until
        what is returned is called they stay; a GPU may get another part of them.
        """
        if not self._is_gpu and want.claim.file is not None:
            for loaded in want.makes_way:
                if loaded.claim.file == want.claim.file:
                    return loaded.model.keep_weights()
        return lambda: None

    def _gpu_layers(self, want: _Want) -> int | None:
        """How many layers the GPU has room for beside what it holds, which is claimed then; `None`: all, or there is
        no GPU to be measured. :raises ModelError: if the host has no room for the others.
        """
        if not self._is_gpu:
            return None
        with self._changed:
            others = [claim for digest, claim in self._loading.items() if digest != want.digest]
            others += [loaded.claim for loaded in (*self._loaded.values(), *self._retired)]
            if self._budget.total([*others, want.claim]) <= self._budget.bytes:
                return None
            layers = layers_that_fit(want.claim, self._budget.bytes - self._budget.total(others))
            if layers is not None:
                want.claim = want.claim._replace(share=layers / (want.claim.layers + 1))
                check_host(want.place.path, want.claim)
                self._loading[want.digest] = want.claim
        return layers

    def _retire(self, digest: str) -> Loaded:
        """Give a model out no more. Without users it is the caller's to put away, once the lock is free."""
        loaded = self._loaded.pop(digest)
        loaded.is_retired = True
        self._retired.append(loaded)
        return loaded

    def _put_away(self, loaded: Loaded) -> None:
        """Free the memory, which takes a while, in which others ask; its room is given away only then."""
        try:
            loaded.close()
        finally:
            with self._changed:
                self._retired.remove(loaded)
                self._changed.notify_all()


def _anew(error: ModelError) -> ModelError:
    """The same error without the stack that it came from, which holds a model."""
    return ModelError(error.message, hint=error.hint, code=error.code)
