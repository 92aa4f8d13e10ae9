"""The counter, in a module that starts a thread when it is imported, so that nothing forks."""

import threading

from counter import count, make

threading.Thread(target=threading.Event().wait, daemon=True).start()

__all__ = ["count", "make"]
