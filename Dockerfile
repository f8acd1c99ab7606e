# syntax=docker/dockerfile:1
# One image for every role: `boxoffice serve --role …`. It is built without a database: .sqlx describes the queries.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY .sqlx .sqlx
COPY migrations migrations
COPY sql sql
COPY nats/single.conf nats/single.conf
COPY workflows workflows
COPY docs/asyncapi.json docs/asyncapi.json
COPY crates crates
COPY src src
COPY web web
COPY sdk/shop-ts/src sdk/shop-ts/src
# The manifest names the tests and the tools; they are not built here.
COPY tools/bench/Cargo.toml tools/bench/Cargo.toml
COPY tools/chaos/Cargo.toml tools/chaos/Cargo.toml
COPY tools/demo/Cargo.toml tools/demo/Cargo.toml
RUN mkdir -p tests/slow && touch tests/main.rs tests/slow/main.rs \
    && for tool in bench chaos demo; do \
        mkdir -p tools/$tool/src tools/$tool/tests && touch tools/$tool/src/main.rs tools/$tool/src/lib.rs tools/$tool/tests/main.rs; \
    done
ENV SQLX_OFFLINE=true
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package boxoffice --bin boxoffice && cp target/release/boxoffice /usr/local/bin/

FROM debian:bookworm-slim
# Certificates for servers behind TLS; curl for the health check of the API.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/boxoffice --create-home boxoffice
COPY --from=build /usr/local/bin/boxoffice /usr/local/bin/boxoffice
USER boxoffice
WORKDIR /var/lib/boxoffice
EXPOSE 8080 8081
ENTRYPOINT ["boxoffice"]
CMD ["serve", "--role", "api,orchestrator,worker,scheduler"]
