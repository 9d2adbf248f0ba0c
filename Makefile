# The commands of daily work; `make` prints them. After `make setup` plain cargo works as well.

# `make setup` has already put the libtorch that the environment names behind `.libtorch`, where
# .cargo/config.toml points: with one spelling of the path torch-sys is compiled once.
CARGO := env -u LIBTORCH -u LIBTORCH_USE_PYTORCH cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help setup demo test test-valgrind lint doc board device-aarch64 test-aarch64 clean

# A 64-bit Arm board. Apart from Rust only the assembly of tract's kernels is compiled, so a C
# compiler for Arm is enough; with musl the program needs no library of the board, and rustup
# brings the linker.
AARCH64 := aarch64-unknown-linux-musl
AARCH64_CPUS := cortex-a53 cortex-a72 cortex-a76
aarch64_name = $(shell echo $(AARCH64) | tr a-z- A-Z_)
aarch64_env = CC_$(subst -,_,$(AARCH64))=aarch64-linux-gnu-gcc \
    CARGO_TARGET_$(aarch64_name)_LINKER=$(if $(findstring musl,$(AARCH64)),rust-lld,aarch64-linux-gnu-gcc)
aarch64_args = --profile arm --target $(AARCH64)
aarch64_program = $(TARGET)/$(AARCH64)/arm/eyas-device

# Emulators older than 10 show programs the processor of this machine in /proc/cpuinfo, where
# tract looks for Arm's features.
QEMU = $(firstword $(foreach name,qemu-aarch64 qemu-aarch64-static,$(shell \
    $(name) --version 2>/dev/null | grep -q ' version [1-9][0-9]' && command -v $(name))))

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup: ## check the tools, fetch libtorch once into the user's cache folder
	@complete=yes; \
	missing() { printf 'setup: %s\nhint: %s\n' "$$1" "$$2" >&2; complete=no; }; \
	has() { command -v "$${1%% *}" >/dev/null 2>&1; }; \
	wanted=$$(sed -n 's/^rust-version = "1\.\([0-9]*\).*/\1/p' Cargo.toml); \
	has cargo || missing 'cargo, which builds Eyas, is not installed' \
	    "install Rust 1.$$wanted or newer from https://rustup.rs, then open a new shell"; \
	found=$$(cargo --version 2>/dev/null | sed -n 's/^cargo 1\.\([0-9]*\).*/\1/p'); \
	test "$${found:-$$wanted}" -ge "$$wanted" || missing "this is Rust 1.$$found; Eyas needs 1.$$wanted" \
	    '`rustup update`, or install a newer Rust from https://rustup.rs'; \
	has "$${CC:-cc}" && has "$${CXX:-c++}" || missing 'a C++ compiler (cc and c++, or what CC and CXX name) is not installed' \
	    'Debian, Ubuntu: `apt-get install g++`; Fedora: `dnf install gcc-c++`; macOS: `xcode-select --install`'; \
	if ! has python3; then missing 'python3, whose pip fetches libtorch, is not installed' \
	    'Debian, Ubuntu: `apt-get install python3 python3-pip`; Fedora: `dnf install python3 python3-pip`'; \
	elif ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 8))'; then \
	    missing 'python3 is too old' 'install python 3.8 or newer, with pip'; fi; \
	test $$complete = yes || exit 2; \
	python3 host/libtorch.py

demo: setup ## build, then the whole job on embedded data: report and bundle in demo/
	$(CARGO) build --release --bins
	$(TARGET)/release/eyas demo --out demo

# The log is shown as it grows and counted afterwards. A test that cannot run here prints a line
# `skipped: REASON` and returns: it counts as skipped, not as passed, and so do ignored ones.
test: setup ## run every test; the last line says how many passed, failed, were skipped
	@mkdir -p $(TARGET)
	@{ $(CARGO) build --release --workspace --bins \
	    && $(CARGO) test --release --workspace --no-fail-fast -- --show-output; \
	    echo "cargo ended with status $$?"; } 2>&1 | tee $(TARGET)/test.log
	@awk '/^test result: / { passed += $$4; failed += $$6; skipped += $$8 } \
	    /^skipped:/ { skipped += 1; passed -= 1 } \
	    /^cargo ended with status / { status = $$5 } \
	    END { \
	        if (status != "0" && failed == 0) { \
	            print "eyas: something did not build, or a test program ended early: it counts as one failure"; \
	            failed = 1; \
	        } \
	        if (passed < 1 && failed == 0) print "eyas: no test passed"; \
	        printf "eyas: %d passed, %d failed, %d skipped\n", (passed > 0 ? passed : 0), failed, skipped; \
	        exit !(failed == 0 && passed > 0); \
	    }' $(TARGET)/test.log

# Valgrind has no AVX-512, so that the kernels for AVX2 are the widest that run in it.
test-valgrind: setup ## the matcher's vector code under valgrind: every load and store within its slice
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='valgrind -q --error-exitcode=9' \
	    $(CARGO) test --release -p eyas-device --lib -- \
	    matcher::kernel matcher::scan::candidates matcher::scan::tests::a_gallery_answers_alike

lint: setup ## format and clippy, with libtorch and without; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	$(CARGO) clippy --release -p eyas-host --no-default-features -- -D warnings

doc: setup ## documentation of the crates; warnings are errors
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --release --no-deps --workspace

board: ## the device program as it goes on a board; needs no libtorch
	EYAS_COMMIT=$$(git rev-parse --short=10 HEAD 2>/dev/null) $(CARGO) build --profile board -p eyas-device

device-aarch64: ## the same for a board with a 64-bit Arm processor: one file without libraries
	@complete=yes; \
	missing() { printf 'device-aarch64: %s\nhint: %s\n' "$$1" "$$2" >&2; complete=no; }; \
	has() { command -v "$$1" >/dev/null 2>&1; }; \
	has cargo || missing 'cargo, which builds Eyas, is not installed' \
	    'install Rust from https://rustup.rs, then open a new shell'; \
	if has cargo && ! test -d "$$(rustc --print target-libdir --target $(AARCH64))"; then \
	    has rustup && rustup target add $(AARCH64) || missing 'Rust lacks its library for $(AARCH64)' \
	        '`rustup target add $(AARCH64)`; without rustup, Debian testing or newer: `dpkg --add-architecture arm64; apt-get update; apt-get install cargo libstd-rust-dev:arm64 libc6-dev-arm64-cross`, then `make device-aarch64 AARCH64=aarch64-unknown-linux-gnu`, whose program needs a board with as new a glibc'; fi; \
	has aarch64-linux-gnu-gcc || missing 'aarch64-linux-gnu-gcc, which assembles for Arm, is not installed' \
	    'Debian, Ubuntu: `apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross`; Fedora: `dnf install gcc-aarch64-linux-gnu`'; \
	test $$complete = yes || exit 2
	EYAS_COMMIT=$$(git rev-parse --short=10 HEAD 2>/dev/null) \
	    $(aarch64_env) $(CARGO) build $(aarch64_args) -p eyas-device --bin eyas-device
	@printf '%s: %d bytes\n' $(aarch64_program) "$$(wc -c < $(aarch64_program))"

# qemu does not pass on the call that sets the speed of a port (TCSETS2), so tests of ports stay out.
test-aarch64: device-aarch64 ## its tests on three Arm processors, under qemu, and its answers beside this machine's
	@test -n "$(QEMU)" || { printf 'test-aarch64: %s\nhint: %s\n' \
	    'qemu-user 10 or newer, which runs programs for Arm, is not installed' \
	    'Debian 13: `apt-get install qemu-user`; Debian 12: the same from bookworm-backports; or name one: `make test-aarch64 QEMU=PATH`' >&2; exit 2; }
	$(CARGO) build --release --workspace --bin eyas-device --example material
	$(TARGET)/release/examples/material $(TARGET)/material
	set -e; for cpu in $(AARCH64_CPUS); do printf '\n== %s\n' $$cpu; \
	    $(aarch64_env) CARGO_TARGET_$(aarch64_name)_RUNNER="$(QEMU) -cpu $$cpu" \
	        $(CARGO) test --quiet $(aarch64_args) -p eyas-shared -p eyas-device --lib --test pixels -- \
            --skip port::tests; \
	    python3 tests/arm/compare.py $(TARGET)/material $(TARGET)/release/eyas-device \
	        $(QEMU) -cpu $$cpu $(aarch64_program); \
	done

clean: ## remove what was built and the demo; the libtorch in the cache folder stays
	$(CARGO) clean
	rm -rf demo
