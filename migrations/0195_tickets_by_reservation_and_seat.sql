-- Two indexes on tickets instead of four. A reservation gets one ticket for each of its seats, once, so both together are the key;
-- it also finds the tickets of a reservation. No statement looks for a ticket by its id or its code. A code has 119 random bits,
-- and the audit finds one that comes twice.
alter table tickets
    drop constraint tickets_pkey,
    drop constraint tickets_code_unique,
    add constraint tickets_pkey primary key using index tickets_key;

insert into schema_compatibility (migration, oldest_level, oldest_release)
select migration, 111, '0.1.0' from generate_series(192, 195) as migration;
