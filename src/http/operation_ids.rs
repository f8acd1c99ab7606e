//! Ids of the operations in the API description.

use utoipa::openapi::OpenApi;

/// Gives every operation an id of its own, as OpenAPI wants it: the method and the path.
pub fn name_operations(api: &mut OpenApi) {
    for (path, item) in &mut api.paths.paths {
        let route = path.trim_start_matches("/v1/").replace(['{', '}'], "").replace(['/', '-', '.'], "_");
        let methods = [
            ("get", &mut item.get),
            ("post", &mut item.post),
            ("patch", &mut item.patch),
            ("delete", &mut item.delete),
        ];
        for (method, operation) in methods {
            if let Some(operation) = operation {
                operation.operation_id = Some(format!("{method}_{}", route.trim_matches('_')));
            }
        }
    }
}
