# Connects, and then becomes another program. That one talks on the connection; where the SYN was
# deferred, a child does, for the program asks for addresses that are not there yet.
import os, socket, sys, time
how, program = sys.argv[1], sys.argv[2]
s = socket.socket()
if how == "deferred-exec":
    s.setsockopt(socket.IPPROTO_TCP, 30, 1)
    s.setsockopt(socket.IPPROTO_TCP, 34, 1)
s.connect(("10.77.0.2", 7000))
os.set_inheritable(s.fileno(), True)
print("ready", flush=True)
if how == "deferred-exec":
    if os.fork() == 0:
        time.sleep(0.7)
        s.send(b"of-the-child")
        s.recv(100)
        os._exit(0)
    os.execv(program, [program, "talk", "127.0.0.1:9", "--delay", "2000"])
os.execv(program, [program, "talk-on", str(s.fileno()), "--wait", "500"])
