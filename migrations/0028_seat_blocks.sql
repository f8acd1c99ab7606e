-- Seats that staff keep from sale.

create table seat_blocks (
    id uuid constraint seat_blocks_pkey primary key,
    performance_id uuid not null constraint seat_blocks_performance references performances (id) on delete cascade,
    seats integer[] not null constraint seat_blocks_has_seats check (cardinality(seats) > 0),
    reason text not null constraint seat_blocks_reason_length check (char_length(reason) between 1 and 1000),
    until timestamptz,
    blocked_by text not null,
    created_at timestamptz not null,
    released_at timestamptz,
    released_by text,
    constraint seat_blocks_release_whole check ((released_at is null) = (released_by is null))
);
comment on table seat_blocks is 'Seats that staff keep from sale. Its id is the holder of each seat that it still has.';
comment on column seat_blocks.seats is 'The seats when they were blocked. Those that were sold from the block are here, too.';
comment on column seat_blocks.until is 'From then on the seats are free for every buyer, tidied up or not.';
create index seat_blocks_of_performance on seat_blocks (performance_id, id desc);
