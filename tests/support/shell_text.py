"""Lines in which a shell may see something."""

from __future__ import annotations

from hypothesis import strategies as st

# Whatever a shell may see something in, and words for it to run.
PIECES = st.lists(
    st.sampled_from(
        "echo /bin/echo printf cat sed a E x=1 $x 2 - ! { }; if esac $( ${x:- && || ;; <<E <<'E' >/dev/null $'".split()
        + [*" \t\n'\"\\#;|&<>()`$}", "b c", "case x in x)", "'\\''"]
    ),
    max_size=14,
).map("".join)  # fmt: skip
