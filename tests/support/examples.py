"""The two files of the basic example, as users are shown them."""

ALICE = """\
[self]
addr = "alice"
socket = "/home/user/.local/r2/alice.sock"
cmd = "echo hello from alice"

[[conn]]
addr = "bob"
cmd = "socat tcp-l:47210,fork,reuseaddr exec:-"
"""
BOB = """\
[self]
addr = "bob"
socket = "/home/user/.local/r2/bob.sock"
cmd = "echo Hello, I'm bob"

[[conn]]
addr = "alice"
cmd = "socat tcp:127.0.0.1:47210 -"
"""
