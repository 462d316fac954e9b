"""The running server: a supervisor and its worker processes.

start.py       the order of the start, and what undoes it
sockets.py     listening sockets, one per worker and listener
tls.py         the server's own certificate, loaded again when it is renewed
supervisor.py  keeps the workers alive; signals
worker.py      one process that serves
backup.py      what a backup is, and how one is made; restore.py brings it back
welcome.py     what the supervisor says when it is ready
"""
