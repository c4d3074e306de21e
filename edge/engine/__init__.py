"""Continuous batching on llama.cpp: tokens in, tokens out. Loaded only in the bench's process.

The life of a request, and where to read of it:

1. `front` takes it from an event loop; `shelf` finds its model in memory or loads it, within the budget of `memory`.
2. `encoding` makes tokens of its messages, and of its options or its shape (`grammar`, `schema`): a `job`.
3. `engine` has it wait its turn, and `room` says which of the model's `lanes` it goes to, or that it waits on.
4. A `lane` gives it a slot; `slots` says what of its prompt is computed already, there or in another slot.
5. Each round `batch` says which tokens the next calls of llama.cpp take, and `pace` on how many threads.
6. What comes back is handed to the answer, `sequence`, which draws a token (`sampling`), keeps to its shape and finds
   its end (`text`), or to the choice, `scoring`, which weighs its options.
7. Its result is a future's. The slot keeps what it holds, for whoever begins with the same tokens next.

Texts become vectors beside all that, a batch between two rounds: `embedding`.
"""
