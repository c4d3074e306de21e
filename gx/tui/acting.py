"""What a person can do to a run from the monitor: each asks the node, and first the person where it spends or destroys.

An action gathers what is to be done, has it confirmed, and hands it to `ask_node`, which waits in a thread.
"""

from __future__ import annotations

from collections.abc import Callable

from textual import work
from textual.app import App
from textual.notifications import Notification, Notify

from gx.core.errors import GxError
from gx.tui.feed import Feed
from gx.tui.intents import Intents, Offer, PlanBurst, told
from gx.tui.limits import limits_of
from gx.tui.model import RunModel
from gx.tui.screens.dialogs import Choose, Confirm, Fill
from gx.tui.states import State

PLANNING_S = 120.0
"""How long it is said that a burst is planned, unless the plan is there before: a long log is read for it."""


class Acting(App[None]):
    """The actions of the monitor on `model.run`."""

    feed: Feed
    model: RunModel
    intents: Intents
    plan_burst: PlanBurst

    def complain(self, error: GxError) -> None:
        """Say what went wrong, and what to do."""
        self.notify(told(error), severity="error", markup=False, timeout=8)

    def tell(self, text: str) -> None:
        """Say what was done."""
        self.notify(text, markup=False)

    @work(thread=True, group="asked")
    def ask_node(self, ask: Callable[[], str]) -> None:
        """Do it, and say what came of it."""
        try:
            said = ask()
        except GxError as error:
            self.call_from_thread(self.complain, error)
            return
        self.feed.wake()
        self.call_from_thread(self.tell, said)

    def has_run(self) -> bool:
        """Whether there is a run to do anything to; says so where there is none."""
        if not self.model.run:
            self.tell("there is no run yet")
        return bool(self.model.run)

    def action_pause(self) -> None:
        """Pause a live run; let a paused, interrupted or stopped one go on."""
        run, intents = self.model.run, self.intents
        if not self.has_run():
            return
        if self.model.is_over:
            self.tell(f"{run} is {self.model.status}")
        elif run in self.feed.live and self.model.status == "running" and not self.has_paused_steps():
            self.ask_node(lambda: intents.pause(run))
        else:
            self.ask_node(lambda: intents.resume(run))

    def has_paused_steps(self) -> bool:
        return any(step.note == "paused" for step in self.model.steps)

    @work
    async def action_limits(self) -> None:
        """Change concurrency, the budget of tokens, the deadline."""
        if not self.has_run() or not self.is_live():
            return
        model, run = self.model, self.model.run
        fields = [
            ("At most so many tasks at once (0: no limit)", str(model.concurrency or "")),
            ("Budget of tokens in all", str(model.budget_tokens or "")),
            ("Deadline from now, such as 90s, 30m or 2h", ""),
        ]
        filled = await self.push_screen_wait(
            Fill(f"Change {run}", fields, "enter: next, and at the end: done; esc: back")
        )
        if filled is None:
            return
        try:
            limits = limits_of(*filled)
        except GxError as error:
            self.complain(error)
            return
        if limits.budget_tokens is not None and limits.budget_tokens > (model.budget_tokens or 0):
            lines = [f"Let {run} compute up to {limits.budget_tokens:,} tokens?"]
            if not await self.push_screen_wait(Confirm("Budget", lines)):
                return
        self.ask_node(lambda: self.intents.change(run, limits.concurrency, limits.budget_tokens, limits.deadline_s))

    def action_burst(self) -> None:
        """Plan a burst; show it and its price; rent if that is agreed to."""
        if self.has_run() and self.is_live():
            planning = Notification("planning what a burst would take and cost …", timeout=PLANNING_S)
            self.post_message(Notify(planning))
            self._plan(self.model.run, planning)

    @work(thread=True, exclusive=True, group="burst")
    def _plan(self, run: str, planning: Notification) -> None:
        """Offer it, or say why there is no offer, in place of that it is planned."""
        found: Offer | GxError
        try:
            found = self.plan_burst(run)
        except GxError as error:
            found = error
        except Exception as error:  # noqa: BLE001  a mistake in a plan costs the plan, not the screen
            hint = f"gx burst --plan {run} may tell more"
            found = GxError(f"no burst could be planned: {type(error).__name__}: {error}", hint=hint)
        self.call_from_thread(self.call_later, self._unnotify, planning)  # behind the message that shows it
        if isinstance(found, GxError):
            self.call_from_thread(self.complain, found)
        else:
            self.call_from_thread(self._offer, run, found)

    @work
    async def _offer(self, run: str, offer: Offer) -> None:
        if await self.push_screen_wait(Confirm(f"Burst {run}", offer.lines)):
            self.ask_node(lambda: self.intents.burst(run, offer.terms))
        else:
            self.tell("nothing was rented")

    @work
    async def action_cancel(self) -> None:
        """Give the run up."""
        if not self.has_run():
            return
        run = self.model.run
        if self.model.is_over:
            self.tell(f"{run} is {self.model.status}: there is nothing to cancel")
        elif await self.push_screen_wait(
            Confirm(f"Cancel {run}", [f"Give {run} up for good?", "What is finished is kept; nothing resumes it."])
        ):
            self.ask_node(lambda: self.intents.cancel(run))

    @work
    async def action_retry(self) -> None:
        await self.retry_run()

    async def retry_run(self) -> None:
        """Run what failed once more, in a new run."""
        if not self.has_run():
            return
        run = self.model.run
        if run in self.feed.live:
            self.tell(f"{run} isn't over: retry a task of it, or wait for its end")
            return
        counts = self.model.counts
        if self.model.is_over and self.model.done == counts[State.succeeded] + counts[State.reused]:
            self.tell(f"nothing of {run} failed: there is nothing to retry")
            return
        lines = [f"Run what failed of {run} once more?", "It is a new run; what succeeded is answered from the log."]
        if await self.push_screen_wait(Confirm("Retry", lines)):
            self.ask_node(lambda: f"{self.intents.retry(run).run} was begun; 9 lists it")

    @work
    async def action_answer(self) -> None:
        """Answer the oldest question of the run."""
        asked = next(iter(self.model.questions.values()), None)
        if asked is None:
            self.tell("nothing is asked")
            return
        run = self.model.run
        choice = await self.push_screen_wait(Choose("A question", asked.text, asked.choices))
        if choice is not None:
            self.ask_node(lambda: self.intents.answer(run, asked.question, choice))

    def is_live(self) -> bool:
        """Whether the run is live; says so where it isn't."""
        if self.model.run not in self.feed.live:
            self.tell(f"{self.model.run} isn't live; p lets it go on, if it isn't over")
        return self.model.run in self.feed.live
