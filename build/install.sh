#!/bin/sh
# Put everything in its place, or take it away again; called by make.
#
#     build/install.sh install|uninstall PYTHON PREFIX [DESTDIR]
#
# A file that is there and is not ours, as radare2's r2, is left alone and reported; `uninstall` removes what `install`
# has put there and nothing else: the directories that it has made too, which a list in share/r2box names, when empty.
set -eu
cd "$(dirname "$0")/.."

action=$1 python=$2 prefix=$3 destdir=${4-}
case $prefix in
    /*) ;;
    "~/"*) prefix=$HOME/${prefix#"~/"} ;;  # bash alone expands it behind a =
    *) echo "make $action: PREFIX=$prefix: must begin with /" >&2; exit 2 ;;
esac
root=$destdir$prefix
bin=$root/bin
list=$root/share/r2box/directories
new=$(mktemp)
made=$(mktemp)
trap 'rm -f "$new" "$made"' EXIT

# Make the directory $1 and those above it, and note in $made which were not there.
make_directory() {
    [ ! -d "$1" ] || return 0
    case $1 in ?*/*) make_directory "${1%/*}" ;; esac
    mkdir "$1"
    echo "${1#"$destdir"}" >>"$made"
}

# Whether the file $1 is there and was not put there by us: all of ours name r2box.
is_foreign() {
    [ -e "$1" ] && ! grep -q r2box "$1"
}

# Put $new at $1, or with uninstall remove $1.
place() {
    if is_foreign "$1"; then
        [ "$action" = uninstall ] || echo "make install: $1: left alone: it is not r2box's" >&2
    elif [ "$action" = uninstall ]; then
        rm -f "$1"
    else
        make_directory "${1%/*}"
        install -m 644 "$new" "$1"
    fi
}

if [ "$action" = install ]; then
    make_directory "$bin"
    "$python" dist/r2box --install "$bin"
fi

for page in man/*.[1578]; do
    cp "$page" "$new"
    place "$root/share/man/man${page##*.}/${page##*/}"
done
# Those of users in share: below ~/.local nothing else is looked into.
for unit in build/systemd/*/*; do
    sed "s|@BIN@|$prefix/bin|" "$unit" >"$new"
    case $unit in
        */user/*) place "$root/share/systemd/user/${unit##*/}" ;;
        *) place "$root/lib/systemd/system/${unit##*/}" ;;
    esac
done

# $new: the completions for the shell $1.
completion() {
    [ "$action" = uninstall ] || "$python" dist/r2box --completion "$1" >"$new"
}
# Shells look for them in a file that is named after the command; zsh reads the names in it.
names=$(sed -n 's|^\([a-z0-9-]*\) = "r2box\.box:entry"$|\1|p' pyproject.toml)
completion zsh
place "$root/share/zsh/site-functions/_r2box"
completion bash
for name in $names; do place "$root/share/bash-completion/completions/$name"; done
completion fish
for name in $names; do place "$root/share/fish/vendor_completions.d/$name.fish"; done

if [ "$action" = uninstall ]; then
    for file in "$bin"/*; do
        if [ "$(readlink "$file")" = r2box ]; then rm -f "$file"; fi
    done
    rm -f "$bin/r2box"
fi

if [ "$action" = install ] && [ -s "$made" ]; then
    make_directory "${list%/*}"
    if [ -e "$list" ]; then cat "$list" >>"$made"; fi
    sort -u "$made" >"$new"
    install -m 644 "$new" "$list"
elif [ "$action" = uninstall ] && [ -f "$list" ]; then
    sort -r "$list" >"$made"
    rm -f "$list"
    # What is below a directory comes before it; one that holds something else stays.
    while read -r directory; do rmdir "$destdir$directory" 2>/dev/null || :; done <"$made"
fi
