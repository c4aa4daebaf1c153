# Connects with these real and effective user ids.
import os, socket, sys
real, effective = int(sys.argv[1]), int(sys.argv[2])
os.setgroups([])
os.setresgid(real, effective, effective)
os.setresuid(real, effective, effective)
s = socket.create_connection(("10.77.0.2", 7000), timeout=3)
s.sendall(b"x")
s.shutdown(socket.SHUT_WR)
s.recv(100)
