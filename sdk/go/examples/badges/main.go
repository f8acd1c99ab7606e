// Badges prints a badge for each paid booking: it serves the steps of examples/badge_printer/booking.toml.
//
//	NATS_URL=nats://127.0.0.1:4222 DATABASE_URL=postgres://127.0.0.1/badges go run ./badges
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	worker "github.com/boxoffice-rs/boxoffice/sdk/go"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/nats-io/nats.go"
)

type badge struct {
	Badge string `json:"badge"`
}

func printBadge(ctx context.Context, tx *sql.Tx, command *worker.Command) (worker.Outcome, error) {
	var booking struct {
		Seats []int `json:"seats"`
	}
	if err := command.Decode(&booking); err != nil {
		return worker.Outcome{}, err
	}
	if len(booking.Seats) == 0 {
		return worker.Rejected("no_seats", nil), nil
	}
	name := fmt.Sprint(command.Saga[28:], booking.Seats)
	if _, err := tx.ExecContext(ctx, "insert into badges (badge, saga) values ($1, $2)", name, command.Saga); err != nil {
		return worker.Outcome{}, err
	}
	return worker.Done(badge{name}), nil
}

func shredBadge(ctx context.Context, tx *sql.Tx, command *worker.Command) (worker.Outcome, error) {
	if command.Done == nil { // nothing was printed
		return worker.Done(nil), nil
	}
	var printed badge
	if err := json.Unmarshal(command.Done, &printed); err != nil {
		return worker.Outcome{}, err
	}
	_, err := tx.ExecContext(ctx, "delete from badges where badge = $1", printed.Badge)
	return worker.Done(nil), err
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	db, err := sql.Open("pgx", os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "create table if not exists badges (badge text primary key, saga uuid not null)"); err != nil {
		return err
	}
	client, err := nats.Connect(os.Getenv("NATS_URL"), nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer client.Close()

	badges := worker.New("badges", worker.Postgres(db))
	badges.Domain = os.Getenv("NATS_DOMAIN")
	badges.Step("badges.print", printBadge, "badges.shred", shredBadge)
	return badges.Run(ctx, client)
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
