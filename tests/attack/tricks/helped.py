# A program in no scope (it begins there as root) helps a strict one, its child, off the host.
import os, socket, sys
marker, how, other, user = sys.argv[1].encode(), sys.argv[2], sys.argv[3], int(sys.argv[4])
to = ("10.77.0.2", 7000)


def become():
    with open(other + "/cgroup.procs", "w") as procs:
        procs.write("0")
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


if how == "leave":
    become()
    s = socket.create_connection(to, timeout=3)
    s.sendall(marker)
    s.recv(100)
elif how == "passed":
    s = socket.create_connection(to, timeout=3)
    if os.fork() == 0:
        become()
        s.sendall(marker)
        s.recv(100)
        os._exit(0)
    os.wait()
elif how == "unix":
    here, there = socket.socketpair()
    if os.fork() == 0:
        become()
        there.sendall(marker)
        os._exit(0)
    given = here.recv(100)
    os.wait()
    s = socket.create_connection(to, timeout=3)
    s.sendall(given)
    s.recv(100)
elif how == "udp":
    here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here.bind(("127.0.0.1", 9998))
    if os.fork() == 0:
        become()
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(marker, ("127.0.0.1", 9998))
        os._exit(0)
    given = here.recv(100)
    os.wait()
    s = socket.create_connection(to, timeout=3)
    s.sendall(given)
    s.recv(100)
