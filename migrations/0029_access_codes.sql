-- A presale: dates that are sold to those who have an access code before they are sold to all.

-- Where the sale opens earlier than the presale, there is no presale.
alter table performances add column presale_opens_at timestamptz
    constraint performances_presale_in_range check (
        presale_opens_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00');
comment on column performances.presale_opens_at is 'From then until the sale opens, seats are held for buyers with an access code.';

create table access_codes (
    id uuid constraint access_codes_pkey primary key,
    concert_id uuid not null constraint access_codes_concert references concerts (id) on delete cascade,
    performance_id uuid constraint access_codes_performance references performances (id) on delete cascade,
    hash bytea not null constraint access_codes_hash unique,
    ending text not null,
    max_uses integer not null constraint access_codes_max_uses check (max_uses between 1 and 100000),
    max_seats integer not null constraint access_codes_max_seats check (max_seats between 1 and 100000),
    created_by text not null,
    created_at timestamptz not null,
    revoked_at timestamptz,
    revoked_by text,
    constraint access_codes_revocation_whole check ((revoked_at is null) = (revoked_by is null))
);
comment on table access_codes is 'Codes for a presale. Only the hash of a code is kept.';
comment on column access_codes.performance_id is 'The one date that the code is for; null for all dates of the concert.';
comment on column access_codes.ending is 'The last characters of the code, so that staff can recognise it.';
comment on column access_codes.max_seats is 'Seats of all live reservations of the code together.';
create index access_codes_of_concert on access_codes (concert_id, id desc);

create table access_code_uses (
    reservation_id uuid constraint access_code_uses_pkey primary key,
    code_id uuid not null constraint access_code_uses_code references access_codes (id) on delete cascade
);
comment on table access_code_uses is 'Which reservation was made with which code. A use counts while its reservation is held or confirmed.';
create index access_code_uses_of_code on access_code_uses (code_id);

create function access_codes_as_read(codes uuid[], uses_then bigint[], seats_then bigint[], moment timestamptz, own uuid[])
returns boolean language plpgsql volatile as $$
begin
    perform pg_advisory_xact_lock(hashtextextended(code::text, 20129))
    from (select distinct code from unnest(codes) as code order by code) as ordered;
    return not exists (
        select from unnest(codes, uses_then, seats_then) as known (code, uses_then, seats_then)
        cross join lateral (
            select count(*) as uses, coalesce(sum(cardinality(r.seats)), 0) as seats
            from access_code_uses u join reservations r on r.id = u.reservation_id
            where u.code_id = known.code and r.id <> all (own)
              and (r.status = 'confirmed' or (r.status = 'held' and r.claimable_at > moment))) as used
        where used.uses <> known.uses_then or used.seats <> known.seats_then);
end $$;
comment on function access_codes_as_read is 'Keeps others from using these codes until the transaction ends, and says whether each was used as often as was read; reservations that are just being written do not count.';
