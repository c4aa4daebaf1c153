# Two users have port 7000 in turn: a server in the strict scope, a thief in no scope.
import os, socket, sys, time


def have(name, cgroup, user, first):
    with open(cgroup + "/cgroup.procs", "w") as procs:
        procs.write("0")
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    turn = 0.02
    while True:
        # Even turns are the server's, odd ones the thief's.
        now = time.monotonic()
        if int(now / turn) % 2 != first:
            time.sleep(turn - now % turn)
            continue
        try:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("0.0.0.0", 7000))
            listener.listen(64)
        except OSError:
            time.sleep(0.0005)
            continue
        until = (int(now / turn) + 1) * turn
        taken = []
        while (left := until - time.monotonic()) > 0:
            listener.settimeout(left)
            try:
                taken.append(listener.accept()[0])
            except OSError:
                break
            answer(name, taken.pop())
        listener.close()


def answer(name, taken):
    taken.settimeout(0.1)
    try:
        data = taken.recv(100)
        print(name + "=" + (data.decode() if data.isascii() else "(no text)"), flush=True)
        taken.sendall(data)
    except OSError:
        pass
    taken.close()


if os.fork() == 0:
    have("thief", sys.argv[3], int(sys.argv[4]), 1)
print("ready", flush=True)
have("server", sys.argv[1], int(sys.argv[2]), 0)
