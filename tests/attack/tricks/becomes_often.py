# Connects and at once becomes another program, again and again; counts how often that one was
# served.
import os, socket, sys
count, enough, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
quiet = os.open("/dev/null", os.O_WRONLY)
tries = hits = 0
while tries < count and not (enough and hits >= enough):
    child = os.fork()
    if child == 0:
        os.dup2(quiet, 1)
        try:
            s = socket.socket()
            os.set_inheritable(s.fileno(), True)
            s.connect(("10.77.0.2", 7000))
            os.execv(program, [program, "talk-on", str(s.fileno())])
        finally:
            os._exit(1)
    tries += 1
    hits += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("tries=%d hits=%d" % (tries, hits))
