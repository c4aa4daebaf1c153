# Listens in no scope, as a service manager would, and then serves in the strict scope.
import os, socket, sys
strict, user = sys.argv[1], int(sys.argv[2])
listener = socket.create_server(("0.0.0.0", 7000))
with open(strict + "/cgroup.procs", "w") as procs:
    procs.write("0")
os.setgroups([])
os.setgid(user)
os.setuid(user)
print("ready", flush=True)
while True:
    taken, _ = listener.accept()
    print("got=" + taken.recv(100).decode(errors="replace"), flush=True)
    taken.close()
