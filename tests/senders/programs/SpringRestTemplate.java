import java.net.URI;
import java.util.Map;
import org.springframework.http.HttpEntity;
import org.springframework.http.HttpHeaders;
import org.springframework.http.MediaType;
import org.springframework.http.ResponseEntity;
import org.springframework.http.client.SimpleClientHttpRequestFactory;
import org.springframework.util.LinkedMultiValueMap;
import org.springframework.util.MultiValueMap;
import org.springframework.web.client.HttpStatusCodeException;
import org.springframework.web.client.RestTemplate;

/** Pushes by Spring's RestTemplate, a MultiValueMap as the form. It stands on HttpURLConnection. */
public final class SpringRestTemplate {
    public static void main(String[] args) throws Exception {
        System.setProperty("http.keepAlive", String.valueOf(args[0].equals("kept")));
        Pushes.run(() -> {
            RestTemplate template = new RestTemplate(new SimpleClientHttpRequestFactory());
            return (url, fields) -> push(template, url, fields);
        });
    }

    private static String push(RestTemplate template, String url, Map<String, String> fields) {
        HttpEntity<?> entity = HttpEntity.EMPTY;
        if (fields != null) {
            MultiValueMap<String, String> form = new LinkedMultiValueMap<>();
            fields.forEach(form::add);
            HttpHeaders headers = new HttpHeaders();
            headers.setContentType(MediaType.APPLICATION_FORM_URLENCODED);
            entity = new HttpEntity<>(form, headers);
        }
        try {
            ResponseEntity<String> response = template.postForEntity(URI.create(url), entity, String.class);
            return Pushes.answer(response.getStatusCodeValue(), response.getHeaders().getFirst("X-Push-Id"));
        } catch (HttpStatusCodeException error) {
            return Pushes.answer(error.getRawStatusCode(), null);
        }
    }
}
