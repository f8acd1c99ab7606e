-- Tickets that their owner gives to another user.

alter table tickets add column holder_id uuid;
comment on column tickets.holder_id is 'Who may use the ticket: the user who took it over. Null: the buyer.';

create table ticket_transfers (
    id uuid constraint ticket_transfers_pkey primary key,
    ticket_id uuid not null,
    reservation_id uuid not null,
    performance_id uuid not null,
    seat integer not null,
    giver_id uuid not null,
    token_hash bytea not null constraint ticket_transfers_token_unique unique,
    status text not null default 'open' constraint ticket_transfers_status_known
        check (status in ('open', 'accepted', 'withdrawn')),
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    ended_at timestamptz,
    taker_id uuid,
    new_ticket_id uuid,
    constraint ticket_transfers_ended check ((status = 'open') = (ended_at is null)),
    constraint ticket_transfers_taken
        check ((status = 'accepted') = (taker_id is not null and new_ticket_id is not null))
);
comment on table ticket_transfers is 'Offers of a ticket to whichever user has the link: each is accepted once at most, and then the ticket has a new id and so a new code.';
comment on column ticket_transfers.token_hash is 'SHA-256 of the token in the link.';
comment on column ticket_transfers.new_ticket_id is 'The id of the ticket from the acceptance on.';
create unique index ticket_transfers_one_open on ticket_transfers (ticket_id) where status = 'open';
create index ticket_transfers_of_taker on ticket_transfers (taker_id, id desc) where status = 'accepted';

insert into schema_compatibility (migration, oldest_level, oldest_release) values (32, 21, '0.1.0');
