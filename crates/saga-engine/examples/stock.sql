create table if not exists stock (item text primary key, pieces integer not null);
insert into stock values ('lamp', 2), ('chair', 0) on conflict do nothing;
