# Tries to get at Tacit's maps and links. Numbers of bpf() commands: include/uapi/linux/bpf.h.
import ctypes, os, sys
how, pins = sys.argv[1], sys.argv[2]
SYS_bpf, OBJ_GET, MAP_NEXT, MAP_FD, LINK_FD, LINK_NEXT, LINK_DETACH = 321, 7, 12, 14, 30, 31, 34
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, *words):
    attr = (ctypes.c_uint32 * 32)(*words)
    answer = libc.syscall(SYS_bpf, command, ctypes.byref(attr), ctypes.sizeof(attr))
    return answer, attr


if how == "path":
    found = [os.path.join(at, name) for at, _, names in os.walk(pins) for name in names]
    for path in found:
        buffer = ctypes.create_string_buffer(path.encode())
        address = ctypes.addressof(buffer)
        if bpf(OBJ_GET, address & 0xFFFFFFFF, address >> 32)[0] >= 0:
            print("worked")
            break
elif how == "number":
    # Without the right to enumerate: all the small numbers there are.
    if any(bpf(MAP_FD, number)[0] >= 0 for number in range(1, 20000)):
        print("worked")
elif how == "links":
    if any(bpf(LINK_FD, number)[0] >= 0 for number in range(1, 20000)):
        print("worked")
