# Calls 10.77.0.2:7000 again and again, and gives each time a marker.
import socket, sys
marker, count = sys.argv[1].encode(), int(sys.argv[2])
for _ in range(count):
    try:
        s = socket.create_connection(("10.77.0.2", 7000), timeout=1)
        s.sendall(marker)
        s.recv(100)
        s.close()
    except OSError:
        pass
print("calls=%d" % count)
