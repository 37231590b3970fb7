// Shows the routes with Swagger UI. Nothing is loaded from other hosts: no validator, no fonts.
"use strict";

// eslint-disable-next-line no-undef -- swagger-ui-bundle.js defines it
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null,
  // A write with the session cookie needs the value of the cookie attn_csrf in a header.
  requestInterceptor: (request) => {
    const csrf = document.cookie.match(/(?:^|; )attn_csrf=([^;]+)/);
    const own = new URL(request.url, location.href).origin === location.origin;
    if (csrf && own && !["GET", "HEAD"].includes((request.method || "GET").toUpperCase())) {
      request.headers["X-CSRF-Token"] = decodeURIComponent(csrf[1]);
    }
    return request;
  },
});
