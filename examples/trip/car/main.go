// Car rents cars. The rentals and the fence are in a Postgres database. There is no car in Venice.
//
//	NATS_URL=nats://127.0.0.1:4222 DATABASE_URL=postgres://127.0.0.1/cars go run .
package main

import (
	"context"
	"database/sql"
	"log"
	"os"
	"os/signal"
	"syscall"

	worker "github.com/boxoffice-rs/boxoffice/sdk/go"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/nats-io/nats.go"
)

func book(ctx context.Context, tx *sql.Tx, command *worker.Command) (worker.Outcome, error) {
	var trip struct{ City string }
	if err := command.Decode(&trip); err != nil {
		return worker.Outcome{}, err
	}
	if trip.City == "Venice" {
		return worker.Rejected("no_roads", nil), nil
	}
	_, err := tx.ExecContext(ctx, "insert into bookings (saga, city) values ($1, $2)", command.Saga, trip.City)
	return worker.Done(map[string]string{"car": "a car in " + trip.City}), err
}

func cancel(ctx context.Context, tx *sql.Tx, command *worker.Command) (worker.Outcome, error) {
	_, err := tx.ExecContext(ctx, "delete from bookings where saga = $1", command.Saga)
	return worker.Done(nil), err // also if nothing was booked
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	db, err := sql.Open("pgx", os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(10)
	table := "create table if not exists bookings (saga uuid not null, city text not null)"
	if _, err := db.ExecContext(ctx, table); err != nil {
		return err
	}
	client, err := nats.Connect(os.Getenv("NATS_URL"), nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer client.Close()

	car := worker.New("car", worker.Postgres(db))
	car.Step("car.book", book, "car.cancel", cancel)
	return car.Run(ctx, client)
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
