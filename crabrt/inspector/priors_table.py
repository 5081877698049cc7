"""What well-known commands do, as data: the table that `priors_commands` looks names up in.

A command whose options decide has a rule there. What stands nowhere is unknown. The lists are of
what is usual on Linux; docs/internals/verdicts.md says how to add to them.
"""

from __future__ import annotations

import re


def words(text: str) -> frozenset[str]:
    """The set of the words in `text`."""
    return frozenset(text.split())


READS = words(
    """
    : [ arch base32 base64 basename bat bc blkid break bzcat bzgrep cal cat cd cksum clear cloc
    cmp col colordiff column comm continue cut date declare df diff diff3 dig dirname dirs dmesg
    du echo egrep env exa exit expand export expr eza factor false fd fdfind fgrep file findmnt
    fmt fold free getconf getent getfacl getfattr getopt getopts grep groups hash head help
    hexdump history host hostid hostname id info iostat ip jobs join jq last ldd less let local
    locale locate logname look ls lsattr lsblk lscpu lsof lspci lsusb man mapfile md5sum more
    netstat nl nm nproc nslookup ntpq numfmt objdump od paste pathchk pgrep pidof ping popd pr
    printenv printf ps pstree pushd pwd pwdx read readarray readelf readlink readonly realpath
    return rev scc seq set sha1sum sha224sum sha256sum sha384sum sha512sum shift shopt size
    sleep ss stat strings stty sum tac tail test tokei tput tr trap true tsort tty type typeset
    ulimit umask uname unexpand uniq unset uptime users vmstat w wait wc whatis whereis which
    who whoami xxd xzcat xzgrep yes zcat zgrep zless zmore zstdcat
    """
)
"""They write nothing but their output."""

WRITES = words(
    """
    7z ar as autoflake autopep8 bison black bsdtar bunzip2 bzip2 c++ cc clang clang++
    clang-format cmake codespell configure convert cpio cscope csplit ctags debootstrap djlint
    dos2unix ed eslint ex fallocate ffmpeg flake8 flex g++ gcc gfortran gofmt gunzip gzip
    h5repack isort javac kotlinc ld ldconfig link lz4 magick mkfifo mknod mktemp mypy nano nasm
    objcopy pandoc patch pdflatex pip-compile pre-commit prettier protoc pyflakes pylint pyright
    pyupgrade ranlib rename ruff rustc rustfmt setfacl setfattr shred split sqlite3 strip
    stylelint swiftc sync tsc unix2dos unlink unrar unxz unzip vi vim virtualenv xz yapf zip
    zstd
    """
)
"""They write files: their output, a copy, a cache."""

LAST, ALL = "last", "all"
TARGETS = {
    "touch": ALL, "rm": ALL, "rmdir": ALL, "mkdir": ALL, "truncate": ALL, "chmod": ALL,
    "chown": ALL, "chgrp": ALL, "mv": ALL, "tee": ALL, "cp": LAST, "install": LAST, "ln": LAST,
}  # fmt: skip
"""They change the files they are given: all of them, or the last."""

SENDS = words(
    """
    ansible ansible-playbook cap chromium doctl eb fab firebase fly flyctl ftp google-chrome
    heroku http https lftp links lynx mail mailx mosh msmtp mutt nc ncat
    netcat netlify oc pulumi railway rclone s3cmd scp sendmail serverless
    sftp sls smbclient socat sqlcmd ssh ssh-copy-id swaks telnet twine vercel w3m wrangler xh
    """
)
"""They are there to talk to other machines, or to a service that keeps what it is told."""

STARTS = words(
    """
    at batch bg chrt coproc daemonize disown fg gunicorn kill killall pkill pm2 renice screen
    setsid skill start-stop-daemon supervisorctl tmux uvicorn x-terminal-emulator
    """
)
"""They start, stop or send away processes."""

RUNS_CODE = words(
    """
    Rscript act ava bats bazel behave buck2 bun bundle bunx celery composer coverage ctest
    cypress deno doctest dotnet elixir erl flask gmake gradle gradlew grunt gulp haskell hatch
    iex invoke ipython ipython3 irb java jest julia jupyter just lua luajit mage make manage.py
    meson mix mocha mvn mvnw ninja nix nix-build node nodejs nose2 nosetests nox npx pdm perl
    php phpunit playwright pnpx poe py.test pypy pypy3 pytest python python2 python3 rails rake
    rspec ruby rye scala scons sphinx-build stack streamlit swift task tclsh tox trial ts-node
    tsx turbo unittest vite vitest webpack
    """
)
"""They run code that is not known here: tests, scripts, builds."""

SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash", "rbash"})

WRAPPERS: dict[str, tuple[str, int]] = {
    "sudo": ("ugpCrthTDR", 0), "doas": ("uC", 0), "time": ("fo", 0), "nice": ("n", 0),
    "ionice": ("cnp", 0), "timeout": ("ks", 1), "stdbuf": ("ioe", 0), "command": ("", 0),
    "builtin": ("", 0), "exec": ("a", 0), "nohup": ("", 0), "unbuffer": ("", 0),
    "xargs": ("adEILnPsi", 0), "parallel": ("jNa", 0), "watch": ("nd", 0), "chroot": ("", 1),
    "catchsegv": ("", 0), "strace": ("eopsPu", 0), "flock": ("wE", 1), "taskset": ("", 1),
    "setarch": ("", 1), "script": ("cEIOBm", 0), "unshare": ("", 0), "linux64": ("", 0),
}  # fmt: skip
"""They run what follows: their one-letter options that take a value, and how many operands come
before the command."""

GIT_READS = words(
    """
    annotate blame cat-file check-attr check-ignore check-mailmap check-ref-format cherry
    count-objects describe diff diff-files diff-index diff-pairs diff-tree for-each-ref fsck
    get-tar-commit-id grep help log ls-files ls-remote ls-tree merge-base name-rev patch-id
    range-diff request-pull rev-list rev-parse shortlog show show-branch show-ref status var
    verify-commit verify-pack verify-tag version whatchanged
    """
)
GIT_WRITES = words(
    """
    add am apply archive bisect bundle checkout checkout-index cherry-pick clean clone commit
    commit-graph commit-tree fast-import fetch filter-branch format-patch gc hash-object
    index-pack init maintenance merge merge-file mergetool mktag mktree multi-pack-index mv
    pack-objects pack-refs prune pull read-tree rebase repack replace reset restore revert rm
    sparse-checkout stash switch symbolic-ref unpack-objects update-index update-ref write-tree
    """
)
GIT_LISTS = {
    "branch": "-a --all -r --remotes -v -vv --list -l --show-current --contains --merged"
    " --no-merged --points-at --sort --format",
    "tag": "-l --list -n --contains --points-at --merged --no-merged --sort -v",
    "remote": "-v --verbose show get-url",
    "stash": "list show",
    "worktree": "list",
    "submodule": "status summary",
    "config": "--get --get-all --get-regexp --get-urlmatch --list -l list get",
    "notes": "list show",
    "reflog": "show exists",
    "bisect": "log view visualize",
    "lfs": "ls-files status env version",
    "sparse-checkout": "list",
    "symbolic-ref": "--short",
}
"""Subcommands that read when they are given one of these (or, the first four, nothing)."""

SUBCOMMANDS: dict[str, dict[str, str]] = {
    "pip": {
        "reads": "list show freeze check index help debug config inspect hash cache",
        "writes": "install uninstall download wheel",
    },
    "uv": {
        "reads": "version tree help",
        "writes": "add remove sync lock venv init export cache self",
        "sends": "publish",
    },
    "poetry": {
        "reads": "show check env about list search",
        "writes": "add remove install update lock init new config self",
        "sends": "publish",
    },
    "npm": {
        "reads": "ls list view info outdated root prefix bin search help config explain fund audit",
        "writes": "install i ci add uninstall remove rm update dedupe prune link init pack version",
        "sends": "publish unpublish deprecate dist-tag login logout adduser owner access",
    },
    "yarn": {
        "reads": "list info why outdated versions help",
        "writes": "add remove install upgrade init link",
        "sends": "publish login logout",
    },
    "pnpm": {
        "reads": "ls list why outdated root bin view",
        "writes": "add remove install i update up init link",
        "sends": "publish login logout",
    },
    "cargo": {
        "reads": "tree metadata search version locate-project pkgid help read-manifest",
        "writes": "build check clippy fmt doc clean add remove update fetch init new vendor fix"
        " generate-lockfile install uninstall package",
        "sends": "publish yank owner login logout",
    },
    "go": {
        "reads": "list version env doc help",
        "writes": "build vet mod fmt get install clean work fix telemetry",
    },
    "gem": {"reads": "list search which", "writes": "install uninstall update", "sends": "push"},
    "conda": {"reads": "list info search", "writes": "install create remove update env"},
    "apt": {
        "reads": "list show search policy depends rdepends",
        "writes": "install remove purge update upgrade autoremove full-upgrade clean",
    },
    "apt-cache": {"reads": "search show policy depends rdepends madison"},
    "dpkg": {"reads": "-l -L -S -s --list --listfiles --search --status", "writes": "-i -r"},
    "rpm": {"reads": "-q -qa -qi -ql -qf", "writes": "-i -U -e"},
    "dnf": {"reads": "list info search", "writes": "install remove update upgrade"},
    "apk": {"reads": "info search list", "writes": "add del update upgrade"},
    "brew": {"reads": "list info search", "writes": "install uninstall update upgrade"},
    "docker": {
        "reads": "ps images logs inspect version info stats top port history search",
        "starts": "run start stop kill restart rm pause unpause",
        "sends": "push login logout",
    },
    "podman": {
        "reads": "ps images logs inspect version info stats top port history search",
        "starts": "run start stop kill restart rm pause unpause",
        "sends": "push login logout",
    },
    "systemctl": {
        "reads": "status is-active is-enabled is-failed list-units list-unit-files show cat",
        "starts": "start stop restart reload enable disable daemon-reload kill mask unmask",
    },
    "service": {"reads": "--status-all"},
    "kubectl": {
        "reads": "get describe logs explain version api-resources api-versions top cluster-info"
        " config",
        "sends": "*",
    },
    "helm": {
        "reads": "list ls status get history version show search template lint env",
        "writes": "pull create dependency package repo",
        "sends": "*",
    },
    "terraform": {
        "reads": "validate show output version graph providers",
        "writes": "fmt init get",
        "sends": "*",
    },
    "crontab": {"reads": "-l", "starts": "*"},
    "openssl": {"reads": "version dgst x509 verify asn1parse", "sends": "s_client"},
    "svn": {
        "reads": "info log status diff cat list ls blame",
        "writes": "add update up checkout co revert delete rm move mv copy cp cleanup resolve",
        "sends": "commit ci import lock unlock",
    },
    "hg": {
        "reads": "log status diff cat annotate identify summary heads tip",
        "writes": "add commit update pull clone revert remove rm mv cp init merge",
        "sends": "push email",
    },
}
"""Programs that do what their first operand says; ``*`` stands for every other one."""

ALIASES = {
    "pip3": "pip", "gh-cli": "gh", "apt-get": "apt", "aptitude": "apt", "yum": "dnf",
    "mamba": "conda", "micromamba": "conda", "tofu": "terraform", "gsed": "sed", "gfind": "find",
    "gawk": "awk", "mawk": "awk", "nawk": "awk", "gtar": "tar", "tree": "sort", "ripgrep": "rg",
    "ack": "rg", "ag": "rg", "source": ".", "wget2": "wget",
}  # fmt: skip

VALUED = {
    "kubectl": ("--kubeconfig", "--cluster", "--user", "--server", "-s", "--token", "--as"),
    "helm": ("--kubeconfig", "--kube-context", "--kube-token", "--kube-apiserver"),
    "docker": ("--host", "--config", "-c", "--log-level", "-l"),
    "podman": ("--connection", "-c", "--log-level", "--root", "--url"),
    "npm": ("--workspace", "-w", "--registry", "--tag", "--userconfig", "--loglevel"),
    "pip": ("--log", "--proxy", "--python", "--timeout", "--retries", "--cert", "--exists-action"),
    "yarn": ("--cwd",), "pnpm": ("--dir", "--filter"), "apt": ("-o", "-t"),
    "cargo": ("--manifest-path", "--color", "--config", "-Z"), "uv": ("--project", "--config-file"),
    "systemctl": ("--machine", "-M", "--host", "--type", "-t", "--property", "-p", "--root"),
}  # fmt: skip
"""Options before the subcommand whose value is the next word, beside those of many programs."""

LOCAL_HOST = re.compile(r"localhost|127(\.\d{1,3}){1,3}|\[::1\]|0\.0\.0\.0")
"""The hosts that are this machine."""

REPLACED = frozenset({"PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "BASH_ENV", "ENV", "IFS"})
"""Variables that decide what a command's name means."""
