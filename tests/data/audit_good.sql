-- One concert, one date with ten seats, and a reservation in each state that a busy sale shows.
-- Ids end in what they are: c0 the concert, d0 the date, a.. users, 0N reservation N, ..1N a cancellation.
insert into concerts (id, name, description) values ('00000000-0000-7000-8000-0000000000c0', 'Audited', '');
insert into performances (id, concert_id, venue, starts_at, duration_minutes, sale_opens_at, sale_closes_at, seats_total)
values ('00000000-0000-7000-8000-0000000000d0', '00000000-0000-7000-8000-0000000000c0', 'Hall',
        now() + interval '9 days', 90, now() - interval '1 day', now() + interval '8 days', 10);
insert into seats (performance_id, number, section, price)
select '00000000-0000-7000-8000-0000000000d0', n, 'A', case n when 8 then 0 else 150 end from generate_series(1, 10) as n;
insert into instances (id, roles, started_at)
values ('00000000-0000-7000-8000-0000000000e0', '{api,worker}', now() - interval '1 hour');

-- 1 confirmed, 2 held, 3 expired, 4 cancelled, 5 being cancelled, 6 paid and being confirmed, 7 confirmed for nothing
insert into reservations (id, user_id, concert_id, performance_id, status, seats, lines, amount, expires_at, claimable_at,
                          cancellation_id, created_at, updated_at)
select ('00000000-0000-7000-8000-00000000000' || n)::uuid, user_id::uuid, '00000000-0000-7000-8000-0000000000c0',
    '00000000-0000-7000-8000-0000000000d0', status, seats,
    (select jsonb_agg(jsonb_build_object('number', s.number, 'section', s.section, 'price', s.price))
     from seats s where s.number = any (r.seats)),
    (select sum(s.price) from seats s where s.number = any (r.seats)),
    now() + interval '300 s', now() + interval '315 s', cancellation_id::uuid, now(), now()
from (values
    (1, '00000000-0000-7000-8000-0000000000a1', 'confirmed', array[1, 2], null),
    (2, '00000000-0000-7000-8000-0000000000a1', 'held', array[3], null),
    (3, '00000000-0000-7000-8000-0000000000a1', 'expired', array[4], null),
    (4, '00000000-0000-7000-8000-0000000000a1', 'cancelled', array[5], '00000000-0000-7000-8000-000000000014'),
    (5, '00000000-0000-7000-8000-0000000000a1', 'cancelled', array[6], '00000000-0000-7000-8000-000000000015'),
    (6, '00000000-0000-7000-8000-0000000000a2', 'held', array[7], null),
    (7, '00000000-0000-7000-8000-0000000000a2', 'confirmed', array[8], null)
) as r (n, user_id, status, seats, cancellation_id);

update seats set status = 'sold', holder = '00000000-0000-7000-8000-000000000001' where number in (1, 2);
update seats set status = 'sold', holder = '00000000-0000-7000-8000-000000000005' where number = 6;
update seats set status = 'sold', holder = '00000000-0000-7000-8000-000000000007' where number = 8;
update seats set status = 'held', holder = '00000000-0000-7000-8000-000000000002',
    expires_at = now() + interval '300 s', claimable_at = now() + interval '315 s' where number = 3;
update seats set status = 'held', holder = '00000000-0000-7000-8000-000000000006',
    expires_at = now() + interval '300 s', claimable_at = now() + interval '315 s' where number = 7;

insert into tickets (id, reservation_id, performance_id, seat, code, status, issued_at, voided_at)
select gen_random_uuid(), ('00000000-0000-7000-8000-00000000000' || n)::uuid, '00000000-0000-7000-8000-0000000000d0',
    seat, 'T' || seat, status, now(), case status when 'void' then now() end
from (values (1, 1, 'valid'), (1, 2, 'valid'), (4, 5, 'void'), (5, 6, 'void'), (7, 8, 'valid')) as t (n, seat, status);

insert into accounts (user_id, balance) values
    ('00000000-0000-7000-8000-0000000000a1', 550), ('00000000-0000-7000-8000-0000000000a2', 50);
insert into ledger_entries (id, user_id, kind, amount, balance, reservation_id, reverses_id, created_at) values
    ('00000000-0000-7000-8000-0000000000f0', '00000000-0000-7000-8000-0000000000a1', 'charge', 1000, 1000, null, null, now()),
    ('00000000-0000-7000-8000-0000000000f1', '00000000-0000-7000-8000-0000000000a1', 'use', 300, 700,
        '00000000-0000-7000-8000-000000000001', null, now()),
    ('00000000-0000-7000-8000-0000000000f4', '00000000-0000-7000-8000-0000000000a1', 'use', 150, 550,
        '00000000-0000-7000-8000-000000000004', null, now()),
    ('00000000-0000-7000-8000-0000000000f9', '00000000-0000-7000-8000-0000000000a1', 'refund', 150, 700,
        '00000000-0000-7000-8000-000000000004', '00000000-0000-7000-8000-0000000000f4', now()),
    ('00000000-0000-7000-8000-0000000000f5', '00000000-0000-7000-8000-0000000000a1', 'use', 150, 550,
        '00000000-0000-7000-8000-000000000005', null, now()),
    ('00000000-0000-7000-8000-0000000000fa', '00000000-0000-7000-8000-0000000000a2', 'charge', 200, 200, null, null, now()),
    ('00000000-0000-7000-8000-0000000000f6', '00000000-0000-7000-8000-0000000000a2', 'use', 150, 50,
        '00000000-0000-7000-8000-000000000006', null, now());
insert into payments_without_entry (id, reservation_id, user_id, amount, status, paid_at, updated_at)
select gen_random_uuid(), id, user_id, amount, 'succeeded', now(), now()
from reservations where id = '00000000-0000-7000-8000-000000000007';

insert into workflow_definitions (workflow, version, steps, signals, events, announced) values
    ('booking', 1, '{reserve,await_payment,pay,confirm}', '{cancel,pay}', '{}', '{}'),
    ('cancellation', 1, '{void,refund,release}', '{}', '{}', '{}')
on conflict do nothing;
insert into sagas (id, definition, subject_id, status, step, direction, visit, attempt, resend_count, entered_at, sent_at, due_at,
                   seq, created_at, updated_at, finished_at)
select ('00000000-0000-7000-8000-0000000000' || id)::uuid, d.code,
    case workflow when 'cancellation' then ('00000000-0000-7000-8000-00000000000' || subject)::uuid end,
    saga_status(status), saga_step(d.code, step), 0, 1, 0, 0, now(), now(),
    case when status in ('running', 'waiting') then now() + interval '300 s' end, 1, now(), now(),
    case when status in ('completed', 'compensated') then now() end
from (values
    ('01', 'booking', 1, 'completed', 'confirm'), ('02', 'booking', 2, 'waiting', 'await_payment'),
    ('03', 'booking', 3, 'compensated', 'reserve'), ('04', 'booking', 4, 'completed', 'confirm'),
    ('14', 'cancellation', 4, 'completed', 'release'), ('05', 'booking', 5, 'completed', 'confirm'),
    ('15', 'cancellation', 5, 'running', 'refund'), ('06', 'booking', 6, 'running', 'confirm'),
    ('07', 'booking', 7, 'completed', 'confirm')
) as s (id, name, subject, status, step)
join workflow_definitions d on d.workflow = s.name and d.version = 1;
