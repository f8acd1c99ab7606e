select dates_as_read($1, $2) as is_as_read
