# Listens again and again, and counts how often plaintext came.
import socket, sys, time
count, enough = int(sys.argv[1]), int(sys.argv[2])
listens = hits = 0
while listens < count and not (enough and hits >= enough):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 7100))
    listener.listen(64)
    listener.setblocking(False)
    listens += 1
    for _ in range(2):
        time.sleep(0.0002)
        try:
            taken, _ = listener.accept()
        except BlockingIOError:
            continue
        taken.settimeout(0.05)
        try:
            hits += b"plain" in taken.recv(100)
        except OSError:
            pass
        taken.close()
    listener.close()
print("listens=%d hits=%d" % (listens, hits))
