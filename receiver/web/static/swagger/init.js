// Apart from the page, so that the Content-Security-Policy needs no inline script.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null });
