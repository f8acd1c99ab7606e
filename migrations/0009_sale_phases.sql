-- When a sale opens by itself, the secret of its draw, and a brake that is off unless both of its bounds are set.

-- Windows that touch or overlap are one sale: it opens with the first of them, and does not open anew while one of
-- them is still to end. Answers for the first sale that is not over; null if there is none.
create function sale_opening(concert uuid, at timestamptz) returns timestamptz
language sql stable as $$
    with windows as (
        select sale_opens_at as opens, sale_closes_at as closes,
               max(sale_closes_at) over (order by sale_opens_at, id
                   rows between unbounded preceding and 1 preceding) as closed
        from performances where concert_id = concert)
    select max(opens) from windows
    where (closed is null or closed < opens)
      and opens <= (select min(opens) from windows where closes > at)
$$;
comment on function sale_opening is 'When the sale of a concert opens or has opened, by the windows of its dates.';

create function fresh_seed() returns bytea
language sql volatile as $$ select sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) $$;
comment on function fresh_seed is 'Thirty-two bytes that nobody can guess.';

alter table queue_settings
    add column seed bytea not null default fresh_seed()
        constraint queue_settings_seed_length check (octet_length(seed) = 32),
    alter column min_rate drop not null,
    alter column min_rate drop default,
    alter column max_rate drop not null,
    alter column max_rate drop default;
-- These were without effect, so that nobody is slowed by them now.
update queue_settings set min_rate = null, max_rate = null;
alter table queue_settings add constraint queue_settings_rates check (min_rate <= max_rate);

comment on column queue_settings.seed is 'What the draw at an opening is made from. Secret; each opening''s own seed, derived from it, is published.';
comment on column queue_settings.opens_at is 'When the sale opens; null: with the first window of its dates.';
comment on column queue_settings.min_rate is 'The slowest that the brake makes the admission, per minute; the brake works if this and max_rate are set.';
comment on column queue_settings.max_rate is 'The fastest that the brake lets the admission become, per minute.';
