-- What sagas are found by, beside their workflow and place. Bookings have none: they are found by their reservations.
create table saga_attributes (
    saga_id uuid not null,
    name text not null,
    value jsonb not null,
    constraint saga_attributes_pkey primary key (saga_id, name),
    constraint saga_attributes_kind check (jsonb_typeof(value) in ('string', 'number'))
);
comment on table saga_attributes is 'Up to 8 attributes of a saga, each a string or an integer, given at its start and deleted with it.';
create index saga_attributes_value on saga_attributes (name, value, saga_id);

insert into schema_compatibility (migration, oldest_level, oldest_release) values (213, 201, '0.1.0');
