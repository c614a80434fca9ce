"""`python -m memory_profiler`: nothing but the call; what it does is in _run."""
from ._run import main

if __name__ == "__main__":
    main()
