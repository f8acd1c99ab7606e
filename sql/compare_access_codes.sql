select access_codes_as_read($1, $2, $3, $4, $5) as is_as_read
