-- Keys of programs that start and signal sagas of some workflows, and see no others.
alter table api_keys
    add column workflows text[],
    drop constraint api_keys_role_known,
    add constraint api_keys_role_known check (role in ('viewer', 'operator', 'admin', 'cashier', 'client')),
    add constraint api_keys_workflows_of_client check ((role = 'client') = coalesce(cardinality(workflows) > 0, false));
comment on column api_keys.workflows is 'The workflows that a key with the role client is for.';

insert into schema_compatibility (migration, oldest_level, oldest_release) values (212, 201, '0.1.0');
