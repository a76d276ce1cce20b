"""One package per chapter: exercises, the experiments behind its claims, and whatever only this chapter needs."""
