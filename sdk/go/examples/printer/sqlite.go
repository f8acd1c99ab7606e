//go:build !nosqlite

package main

import _ "modernc.org/sqlite" // it takes minutes to compile, and a test on Postgres needs none
