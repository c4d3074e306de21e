"""Continuous batching on llama.cpp: tokens in, tokens out. Loaded only in the bench's process.

A request is a turn of an agent; on its way through the engine it is a *job*. A *lane* is one context of llama.cpp,
divided into *slots* of equal length, each of which holds the keys and values of one sequence. The engine's thread takes
*rounds*: a round is a few *calls* of llama_decode, and a call one or more *passes* over the weights. That is what
continuous batching is: a job takes a slot in any round, and leaves it in any other, wherever the others have got to.

One round, in order:

- take what arrived, dismiss who was cancelled, admit who fits (`rounds`);
- end who was cancelled or is late, and make one lane of two where each has few jobs left (`lanes`);
- then in each lane copy what others have computed by now, bring those that write together, choose the calls (`calls`),
  decode each of them, and hand every job its logits (`lane`, whose `round` is the page to begin with).

The life of a request, and where to read of it:

1. `front` takes it from an event loop, and hands it to the `engine`; `shelf` finds its model in memory or has it
   `loaded`, within the budget of `memory`.
2. `encoding` makes tokens of its messages, and of its options or its shape (`shapes`): a `job`.
3. `rounds`, the thread that decodes, has it wait its turn, and `room` says which of the model's `lanes` it goes to, or
   that it waits on.
4. A `lane` gives it a slot of its `cache`; `slots` says what of its prompt is computed already, and what only another
   lane has is brought over.
5. Each round `calls` says which tokens the next calls take, and `pace` on how many threads.
6. What comes back is handed to the answer, `writing`, which draws a token (`sampling`), keeps to its shape and finds
   its end (`text`), or to the choice, `scoring`, which weighs its options.
7. Its result is a future's. The slot keeps what it holds, for whoever begins with the same tokens next.

Texts become vectors beside all that, a batch between two rounds (`embedding`), and so do `pairs` of a question and a
passage, scores. `llama` alone knows llama.cpp; `gguf` refuses files before that sees them. `statistics` adds up what
was done, and `measure` finds out how fast a model is with another `tuning`.
"""
