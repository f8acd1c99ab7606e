-- Where the seats of a date are. A date has a row for each of its seats, or none at all.
--
-- The places are apart from the seats, because each booking writes the seats' rows and none writes a place.

create table seat_places (
    performance_id uuid not null constraint seat_places_performance references performances (id) on delete cascade,
    number integer not null,
    rank integer not null constraint seat_places_rank check (rank >= 0),
    row_label text,
    label text,
    x integer,
    y integer,
    accessible boolean not null,
    companion boolean not null,
    constraint seat_places_pkey primary key (performance_id, number)
);
comment on table seat_places is 'Where the seats of a date are, and in which order they are offered. A date without a plan has no rows.';
comment on column seat_places.rank is 'Seats with a lower rank are better; within a rank the lower number is.';
comment on column seat_places.companion is 'A seat beside an accessible one, for who comes along.';
create index seat_places_by_rank on seat_places (performance_id, rank, number);
