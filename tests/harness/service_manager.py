"""A stand-in for systemd: runs one service, keeps the descriptors that it gives (`FDSTORE=1`),
passes them on to the next process (`LISTEN_FDS`), and starts that as soon as one has ended.

service_manager.py PAUSE_MS CGROUP_PROCS NOTIFY_SOCKET PROGRAM ARGUMENT...
PAUSE_MS passes between the end of one and the start of the next (`RestartSec=`).
SIGTERM stops the service and ends; SIGHUP restarts it, as `systemctl restart` would."""

import array
import fcntl
import os
import signal
import socket
import sys
import time

FIRST = 3
HIGH = 100


def say(text):
    print(text, flush=True)


class Service:
    def __init__(self, pause, procs, path, command):
        self.pause = int(pause) / 1000
        self.procs, self.path, self.command = procs, path, command
        self.store, self.pid, self.wanted, self.asked = [], None, True, None
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(path)
        self.notify.settimeout(0.01)

    def start(self):
        self.pid = os.fork()
        if self.pid == 0:
            self.become()
        say(f"main={self.pid}")

    def become(self):
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        with open(self.procs, "w") as procs:
            procs.write("0")
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, HIGH) for _, fd in self.store]
        for number, fd in enumerate(high):
            os.dup2(fd, FIRST + number, inheritable=True)
            os.close(fd)
        os.closerange(FIRST + len(high), HIGH)
        os.environ["NOTIFY_SOCKET"] = self.path
        os.environ["FDSTORE"] = "16"
        if high:
            os.environ["LISTEN_PID"] = str(os.getpid())
            os.environ["LISTEN_FDS"] = str(len(high))
            os.environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in self.store)
        os.execv(self.command[0], self.command)

    def hear(self):
        try:
            text, rights, _, _ = self.notify.recvmsg(4096, socket.CMSG_SPACE(16 * 4))
        except (TimeoutError, InterruptedError):
            return False
        words = dict(line.split("=", 1) for line in text.decode().splitlines() if "=" in line)
        fds = array.array("i")
        for level, kind, data in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data)
        name = words.get("FDNAME", "stored")
        if words.get("FDSTOREREMOVE") == "1":
            for one in [one for one in self.store if one[0] == name]:
                self.store.remove(one)
                os.close(one[1])
            say(f"removed={name}")
        if words.get("FDSTORE") == "1":
            for fd in fds:
                if any(os.path.samestat(os.fstat(fd), os.fstat(kept)) for _, kept in self.store):
                    os.close(fd)
                else:
                    self.store.append((name, fd))
                    say(f"stored={name}")
        for word in ("READY", "STOPPING"):
            if word in words:
                say(f"{word.lower()}={words[word]}")
        return True

    def run(self):
        self.start()
        while True:
            while self.hear():
                pass
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                # What the dead have said is heard before the next one speaks.
                while self.hear():
                    pass
                say(f"ended={status}")
                if not self.wanted:
                    return
                until = time.monotonic() + self.pause
                while time.monotonic() < until:
                    self.hear()
                self.start()

    def told(self, number, _frame):
        if number == signal.SIGTERM:
            self.wanted = False
        os.kill(self.pid, signal.SIGTERM)


service = Service(*sys.argv[1:4], sys.argv[4:])
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, service.told)
service.run()
