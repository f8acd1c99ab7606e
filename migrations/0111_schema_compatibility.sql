-- Which releases work on the schema. Each later migration that older releases can work with adds its row here; a
-- release that finds a migration it does not know reads the row. Without a row older releases refuse to start.
-- CONTRIBUTING.md has the rule.

create table schema_compatibility (
    migration bigint primary key,
    oldest_level bigint not null,
    oldest_release text not null,
    check (oldest_level < migration)
);
comment on table schema_compatibility is 'Which releases still work after a migration: those that know the migration `oldest_level`, which came with `oldest_release`, or a newer one. For an older release to read.';
