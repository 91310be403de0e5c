"""Execute a program that ends when our parent does: ``python3 diewith.py PARENT PROGRAM...``. A file of its own, run by itself."""

import ctypes
import os
import signal
import sys

ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
# As a program expects to be born: we run in a process that blocks signals, and Python itself ignores SIGPIPE (pasta of 2023 takes
# the latter, inherited, for a failure).
signal.pthread_sigmask(signal.SIG_SETMASK, [])
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.execvp(sys.argv[2], sys.argv[2:])
